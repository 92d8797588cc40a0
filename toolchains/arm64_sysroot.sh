#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Unpacks the distribution's Python for 64-bit Arm under build/arm64, to run under QEMU:
#
#   toolchains/arm64_sysroot.sh            # needs apt, qemu-aarch64, python3 with pip and pybind11
#   build/arm64/python -c 'import numpy, platform; print(platform.machine())'
#
#   build/arm64/sysroot/       CPython, its headers and libraries, unpacked from the arm64 packages
#   build/arm64/site-packages/ NumPy, click and pytest, from aarch64 wheels
#   build/arm64/site/          for the cross-built qppengine
#   build/arm64/python         runs the interpreter; QEMU_CPU chooses the CPU (default cortex-a76)
#   build/arm64/python.cmake   initial cache of a cross build of the extension module
#
# No root needed: apt works with its own configuration, lists and cache; the system's stay untouched.
# QPP_ARM64_MIRROR overrides where the packages come from (the URL of a mirror with arm64).
set -euo pipefail
cd "$(dirname "$0")/.."

root=$PWD/build/arm64
python=${PYTHON:-python3}
stamp=$root/.stamp
[[ $stamp -nt $0 ]] && exit
rm -rf "$root"
mkdir -p "$root"/apt/{sources,lists/partial,cache/archives/partial} "$root"/{sysroot/usr/lib,site}

# --- where the packages are
. /etc/os-release
mirror=${QPP_ARM64_MIRROR:-}
if [[ -z $mirror && $ID == ubuntu ]]; then
  domain=${HOME_URL#*://} domain=${domain#www.} domain=${domain%%/*}
  mirror=http://ports.$domain/ubuntu-ports  # the main mirrors of Ubuntu have no arm64
fi
if [[ -n $mirror ]]; then
  components=main
  [[ $ID == ubuntu ]] && components='main universe'
  for suite in "$VERSION_CODENAME" "$VERSION_CODENAME-updates"; do
    echo "deb $mirror $suite $components"
  done > "$root/apt/sources/mirror.list"
else
  for source in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
    [[ ! -e $source ]] || cp "$source" "$root/apt/sources/"
  done
fi

touch "$root/apt/status"
export APT_CONFIG=$root/apt/apt.conf
cat > "$APT_CONFIG" << END
APT::Architecture "arm64";
APT::Architectures { "arm64"; };
APT::Sandbox::User "root";
Acquire::Languages "none";
Dir::Etc::SourceList "/dev/null";
Dir::Etc::SourceParts "$root/apt/sources";
Dir::State::Lists "$root/apt/lists";
Dir::State::Status "$root/apt/status";
Dir::Cache "$root/apt/cache";
END

# --- the interpreter: the packages' contents, none of their installation scripts
ln -s usr/lib "$root/sysroot/lib"  # the loader's path, whichever of the two a package uses
apt-get -qq update
apt-get -qq install --yes --download-only --no-install-recommends python3 libstdc++6
version=$(apt-cache depends python3 | sed -n 's/.*Depends: python\([0-9.]*\)$/\1/p' | head -n 1)
(cd "$root/apt/cache/archives" && apt-get -qq download "libpython$version-dev")
for package in "$root"/apt/cache/archives/*.deb; do
  dpkg-deb --fsys-tarfile "$package" |
    tar --extract --directory "$root/sysroot" --keep-directory-symlink --no-same-owner
done
# Debian's pyconfig.h looks for the one of the architecture in /usr/include; not here.
cp "$root/sysroot/usr/include/"{aarch64-linux-gnu/,}"python$version/pyconfig.h"

# --- the wheels, which pip chooses for the other machine
"$python" -m pip install --quiet --target "$root/site-packages" --only-binary=:all: \
  --platform manylinux_2_28_aarch64 --platform manylinux2014_aarch64 \
  --python-version "$version" numpy click pytest

cat > "$root/python" << END
#!/bin/sh
PYTHONPATH=$root/site:$root/site-packages PYTHONDONTWRITEBYTECODE=1 \\
  exec qemu-aarch64 -cpu "\${QEMU_CPU:-cortex-a76}" -L "$root/sysroot" \\
  "$root/sysroot/usr/bin/python$version" "\$@"
END
chmod +x "$root/python"

cat > "$root/python.cmake" << END
set(QPP_PYTHON ON CACHE BOOL "" FORCE)
set(PYBIND11_USE_CROSSCOMPILING ON CACHE BOOL "" FORCE)
set(pybind11_DIR $("$python" -m pybind11 --cmakedir) CACHE PATH "" FORCE)
set(Python_INCLUDE_DIR $root/sysroot/usr/include/python$version CACHE PATH "" FORCE)
set(PYTHON_IS_DEBUG OFF CACHE BOOL "" FORCE)
set(PYTHON_MODULE_DEBUG_POSTFIX "" CACHE STRING "" FORCE)
set(PYTHON_MODULE_EXTENSION $("$root/python" -c \
  'import sysconfig; print(sysconfig.get_config_var("EXT_SUFFIX"))') CACHE STRING "" FORCE)
END
touch "$stamp"
