# SPDX-License-Identifier: Apache-2.0
"""``python -m qppengine``: the command line without the script that pip installs."""

from qppengine.cli import main

main(prog_name="python -m qppengine")
