# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from qppengine.quantization import FEATURE_KINDS, TRANSFORMS, Feature
from qppengine.session import SCHEMES, session_options

if TYPE_CHECKING:
    from qppengine.records import SessionOption

Command = TypeVar("Command", bound=Callable[..., Any])
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
TARGET = click.Path(dir_okay=False, path_type=Path)


def _parse_feature(text: str) -> Feature:
    """A feature as KIND[=ALPHA][:VALUE[:TRANSFORM]]; names of values may contain colons."""
    kind, _, rest = text.partition(":")
    value, colon, transform = rest.rpartition(":")
    if not colon or transform not in TRANSFORMS:
        value, transform = rest, "identity"
    kind, equals, alpha = kind.partition("=")
    try:
        return Feature(kind, float(alpha) if equals else None, value or None, transform)
    except ValueError as error:  # of float() and of Feature
        raise click.BadParameter(
            f"expected KIND[=ALPHA][:VALUE[:TRANSFORM]], got {text!r}: {error}"
        ) from error


def _parse_margin(text: str) -> float | Literal["fitted"]:
    if text == "fitted":
        return "fitted"
    try:
        return float(text)
    except ValueError:
        raise click.BadParameter(f'expected "fitted" or a number, got {text!r}') from None


json_option = click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")

scheme_option = click.option(
    "--scheme",
    type=click.Choice(SCHEMES),
    default="qpp",
    show_default=True,
    help="Source of the quantization parameters.",
)

input_option = click.option(
    "--input",
    "inputs",
    type=FILE,
    multiple=True,
    required=True,
    help="A .npy file, float32 [N, C, H, W]; one for every input of the network.",
)

size_option = click.option(
    "--size",
    type=click.IntRange(1),
    nargs=2,
    help="Height and width of inputs with dynamic dimensions.",
)

feature_option = click.option(
    "--feature",
    "features",
    callback=lambda context, parameter, texts: tuple(map(_parse_feature, texts)),
    multiple=True,
    metavar="KIND[=ALPHA][:VALUE[:TRANSFORM]]",
    help=f"A feature of every position, can be repeated. KIND is {', '.join(FEATURE_KINDS)}; "
    "only quantile has an ALPHA. VALUE is the position unless it is named. TRANSFORM is "
    f"{' or '.join(TRANSFORMS)}. For example max:conv2, quantile=0.999, min::log. Default: "
    "quantiles, mean and max of the position.",
)

margin_option = click.option(
    "--margin",
    callback=lambda context, parameter, text: _parse_margin(text),
    default="fitted",
    show_default=True,
    metavar="fitted|NUMBER",
    help="Fitted to the errors of rounding and clipping; or the standard deviations of their error "
    "by which bounds predicted by least squares are moved outwards.",
)

bits_option = click.option(
    "--bits",
    type=click.IntRange(2, 8),
    default=8,
    show_default=True,
    help="The activation bits for which margins and static bounds are fitted.",
)


def with_session_options(command: Command) -> Command:
    """The options of `Session`, except for the scheme."""
    for option in reversed(session_options()):
        if option["name"] != "scheme":
            command = click.option(
                "--" + option["name"].replace("_", "-"),
                type=_parameter_type(option),
                default=option["default"],
                show_default=option["default"] is not None,
                help=option["help"],
            )(command)
    return command


def _parameter_type(option: SessionOption) -> click.ParamType[Any]:
    if option["choices"] is not None:
        return click.Choice(option["choices"])
    low, high = option["min"] or 0, option["max"] or 0
    if option["type"] == "integer":
        return click.IntRange(int(low), int(high))
    return click.FloatRange(low, high, min_open=True)


def with_fp16_options(command: Command) -> Command:
    """The options of `keep_fp16`."""
    for option in (
        click.option("--skip-last", is_flag=True, help="Keep the last layers in fp16."),
        click.option("--skip-first", is_flag=True, help="Keep the first layers in fp16."),
        click.option(
            "--fp16",
            "modules",
            multiple=True,
            help="A module to keep in fp16; can be repeated.",
        ),
    ):
        command = option(command)
    return command
