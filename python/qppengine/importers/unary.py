# SPDX-License-Identifier: Apache-2.0
"""Importer of the operators that schemas of operations list as their sources."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qppengine.errors import UnsupportedError
from qppengine.importers.program import Ref
from qppengine.importers.registry import ImportContext, importer
from qppengine.operations import SOURCES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qppengine.builder import GraphBuilder


@importer(*SOURCES)
def unary(context: ImportContext, graph: GraphBuilder) -> str:
    """The first operation of this operator whose required arguments the call has."""
    rows = SOURCES[context.call.target]
    arguments = {**rows[0][1].defaults, **context.call.arguments}
    for schema, source in rows:
        if all(arguments[name] == value for name, value in source.requires.items()):
            value = next(name for name, a in arguments.items() if isinstance(a, Ref))
            attributes = {
                name: _number(context, name, arguments, source.arguments.get(name, name))
                for name in schema.attributes
            }
            return graph.unary(context.value(value), schema.name, name=context.name, **attributes)
    raise UnsupportedError(
        _text({name: arguments[name] for name in rows[0][1].requires}),
        closest=" or ".join(_text(source.requires) for _, source in rows),
    )


def _number(
    context: ImportContext, attribute: str, arguments: Mapping[str, Any], argument: str
) -> float:
    """A number, or the only element of a constant."""
    value = arguments[argument]
    if isinstance(value, Ref):
        value = context.tensor(argument)
    elements = np.asarray(value, object)
    if elements.size != 1:
        raise UnsupportedError(f"{attribute}s {list(elements.shape)}", closest="one number")
    number = elements.item()
    if not isinstance(number, (int, float)):
        raise UnsupportedError(f"{attribute} {number!r}", closest="a constant number")
    return float(number)


def _text(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())
