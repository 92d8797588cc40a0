#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs those of the given Debian or Ubuntu packages that are missing, and says so.
set -euo pipefail

if ! command -v dpkg-query apt-get > /dev/null; then
  echo "This is not a Debian or Ubuntu system; install the equivalents of these packages: $*"
  exit
fi
missing=()
for package; do
  status=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2> /dev/null || true)
  [[ $status == installed ]] || missing+=("$package")
done
((${#missing[@]})) || exit 0

run=()
((EUID == 0)) || run=(sudo)
run+=(env DEBIAN_FRONTEND=noninteractive apt-get)
echo "Installing Debian packages: ${missing[*]}"
install=("${run[@]}" install --quiet --quiet --yes --no-install-recommends "${missing[@]}")
log=$(mktemp)
trap 'rm "$log"' EXIT
"${install[@]}" > "$log" 2>&1 ||
  { "${run[@]}" update --quiet --quiet && "${install[@]}"; } > "$log" 2>&1 ||
  { cat "$log"; exit 1; }
