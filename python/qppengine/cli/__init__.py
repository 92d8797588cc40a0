# SPDX-License-Identifier: Apache-2.0
"""The command line. Every command prints a report, as a table or, with ``--json``, for programs."""

from qppengine.cli import models as models  # registers the commands
from qppengine.cli import sessions as sessions
from qppengine.cli import tools as tools
from qppengine.cli.group import main

__all__ = ["main"]
