# SPDX-License-Identifier: Apache-2.0
"""Every class that the public interface takes or returns can be named from `qppengine`."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import sys
from typing import TYPE_CHECKING, Any

import qppengine

if TYPE_CHECKING:
    from collections.abc import Iterator


def find_annotations(public: Any) -> Iterator[str]:
    """The annotations of a function, or of the public members and fields of a class."""
    if inspect.isfunction(public):
        yield from map(str, public.__annotations__.values())
    elif inspect.isclass(public):
        fields = inspect.get_annotations(public)
        yield from (str(text) for name, text in fields.items() if not name.startswith("_"))
        for name, member in vars(public).items():
            function = member.fget if isinstance(member, property) else member
            function = getattr(function, "__func__", function)  # of class methods
            is_public = not name.startswith("_") or name == "__init__"
            if is_public and inspect.isfunction(function):
                yield from map(str, function.__annotations__.values())


def names_of_module(module: str) -> dict[str, Any]:
    """All names of a module, those imported for type checking only among them."""
    names = dict(vars(importlib.import_module(module)))
    for node in ast.walk(ast.parse(inspect.getsource(sys.modules[module]))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("qppengine"):
            source = importlib.import_module(str(node.module))
            for alias in node.names:
                names[alias.asname or alias.name] = getattr(source, alias.name, None)
    return names


def find_hidden(public: Any, exported: list[Any]) -> set[str]:
    """Classes of this package that annotations of a public name mention and nobody can import."""
    names = names_of_module(public.__module__)
    hidden = set()
    for text in find_annotations(public):
        for node in ast.walk(ast.parse(text, mode="eval")):
            found = names.get(node.id) if isinstance(node, ast.Name) else None
            if not inspect.isclass(found) or found in exported:
                continue
            if found.__module__.startswith("qppengine"):
                hidden.add(found.__name__)
    return hidden


def test_find_hidden_can_fail() -> None:
    assert find_hidden(qppengine.Session, []) >= {"InputInfo", "Limits", "Memory", "Step"}
    assert find_hidden(qppengine.Quantization, []) >= {"Plan"}
    assert find_hidden(qppengine.fit, []) == {"Calibration", "Quantization"}


def test_public_classes_can_be_named() -> None:
    exported = [getattr(qppengine, name) for name in qppengine.__all__]
    hidden = {
        name: found
        for name, public in zip(qppengine.__all__, exported, strict=True)
        if (inspect.isfunction(public) or inspect.isclass(public))
        and (found := find_hidden(public, exported))
    }
    assert not hidden


def test_public_classes_are_documented() -> None:
    for name in qppengine.__all__:
        public = getattr(qppengine, name)
        if inspect.isclass(public) or inspect.isfunction(public):
            assert public.__doc__, name
            if dataclasses.is_dataclass(public):
                assert not public.__doc__.startswith(f"{name}("), name
