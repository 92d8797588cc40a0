# SPDX-License-Identifier: Apache-2.0
"""The group of all commands. It prints the package's errors in one line."""

from __future__ import annotations

from typing import Any

import click

from qppengine.errors import Error
from qppengine.session import __version__

# Optional packages and the extra of qppengine that brings them.
EXTRAS = {
    "safetensors": "tools",
    "sklearn": "tools",
    "tqdm": "tools",
    "PIL": "demo",
    "matplotlib": "demo",
    "skimage": "demo",
    "torch": "torch",
    "onnx": "onnx",
}


class _Group(click.Group):
    """Prints errors of the package as ``Error: ...`` with exit code 1, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Error as error:
            raise click.ClickException(str(error)) from error
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if package not in EXTRAS:
                raise
            raise click.ClickException(
                f"this needs {package}: pip install 'qppengine[{EXTRAS[package]}]'"
            ) from error


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Quantized inference whose quantization parameters are predicted per sample.

    Shell completion: eval "$(_QPPENGINE_COMPLETE=bash_source qppengine)", likewise zsh, fish.
    """
