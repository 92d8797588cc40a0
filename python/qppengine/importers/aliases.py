# SPDX-License-Identifier: Apache-2.0
"""Rewrites operators that change a tensor in place as operators that return a new one.

In a program as PyTorch exports it several tensors may share their elements: views form a tree over
the tensor that owns the storage. A change of one of them is a new value of this tensor, written
through to everything it is a view of; other views are made again from that when they are read next.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from qppengine.errors import Error, ModelError
from qppengine.importers.program import Call, Ref

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from qppengine.ir import Shape
    from qppengine.limits import Limits


class Layout(NamedTuple):
    """The program's description of a tensor. A dynamic dimension is None.

    `example` and `strides` are those of the example that it was exported on, None where unknown.
    """

    sizes: Shape
    example: tuple[int, ...] | None
    strides: tuple[int, ...] | None
    dtype: int


Arguments: TypeAlias = "dict[str, Any]"
# How a changed view is written to its source: the operator, and its arguments but for the source,
# "self", and the view, "src"; one that only looks different is "self" alone. None: not at all.
Write: TypeAlias = "tuple[str, Arguments] | None"
_Writer: TypeAlias = "Callable[[Call, int, Sequence[Layout]], Write]"


def _write_slice(call: Call, index: int, outputs: Sequence[Layout]) -> Write:
    return "aten.slice_scatter.default", _some(call, "dim", "start", "end", "step")


def _write_narrow(call: Call, index: int, outputs: Sequence[Layout]) -> Write:
    start, length = call.arguments.get("start"), call.arguments.get("length")
    if not isinstance(start, int) or not isinstance(length, int) or start < 0:
        return None
    part = {"start": start, "end": start + length}
    return "aten.slice_scatter.default", {**_some(call, "dim"), **part}


def _write_part(call: Call, index: int, outputs: Sequence[Layout]) -> Write:
    """What split and its kin make begins where the parts before it end."""
    dim = call.arguments.get("dim", 0)
    sizes = [layout.sizes[dim] for layout in outputs[: index + 1]]
    if None in sizes:
        return None
    *before, size = (n or 0 for n in sizes)
    part = {"dim": dim, "start": sum(before), "end": sum(before) + size}
    return "aten.slice_scatter.default", part


def _write_select(call: Call, index: int, outputs: Sequence[Layout]) -> Write:
    return "aten.select_scatter.default", {"dim": 0, "index": index, **_some(call, "dim", "index")}


def _write_permute(call: Call, index: int, outputs: Sequence[Layout]) -> Write:
    dims = call.arguments["dims"]
    order = [dim % len(dims) for dim in dims]
    return "aten.permute.default", {"dims": [order.index(dim) for dim in range(len(order))]}


def _write_transpose(call: Call, index: int, outputs: Sequence[Layout]) -> Write:
    """Exchanging two dimensions is undone by exchanging them again."""
    return call.target, {k: v for k, v in call.arguments.items() if k != "self"}


def _write_view(call: Call, index: int, outputs: Sequence[Layout]) -> Write:
    return "aten.view.default", {}


def _write_nothing(call: Call, index: int, outputs: Sequence[Layout]) -> Write:
    return None


def _some(call: Call, *names: str) -> Arguments:
    return {name: call.arguments[name] for name in names if call.arguments.get(name) is not None}


# Operators whose results are views, and the operator that writes a changed view to its source.
# fmt: off
VIEWS: Mapping[str, _Writer] = {
    "slice": _write_slice,
    "narrow": _write_narrow,
    **dict.fromkeys(("chunk", "split", "split_with_sizes", "tensor_split"), _write_part),
    **dict.fromkeys(("select", "unbind"), _write_select),
    "permute": _write_permute,
    **dict.fromkeys(("transpose", "t", "swapaxes", "swapdims", "mT", "numpy_T"), _write_transpose),
    **dict.fromkeys(("view", "view_as", "squeeze", "unsqueeze", "unflatten"), _write_view),
    **dict.fromkeys((
        "adjoint", "as_strided", "broadcast_to", "conj", "diagonal", "dsplit", "expand",
        "expand_as", "hsplit", "imag", "linalg_diagonal", "matrix_H", "mH", "moveaxis", "movedim",
        "real", "unfold", "view_as_complex", "view_as_real", "vsplit",
    ), _write_nothing),
}
# fmt: on

# Operators that return the tensor they are given: always, or under a condition.
SAME = frozenset(
    {"alias", "detach", "lift_fresh", "pin_memory", "positive", "resolve_conj", "resolve_neg"}
)
SAME_UNLESS_TRAINING = frozenset(
    {"alpha_dropout", "dropout", "feature_alpha_dropout", "feature_dropout"}
)
SAME_IF_NOTHING_CHANGES = frozenset({"contiguous", "cpu", "cuda", "to", "type_as"})
VIEWS_IF_POSSIBLE = frozenset({"flatten", "ravel", "reshape", "reshape_as"})

_IN_PLACE = {f"__i{name}__": f"__{name}__" for name in ("and", "or", "xor", "lshift", "rshift")}
# Overloads that write their results to tensors among the arguments, as those named "out" do.
_OUT_OVERLOADS = frozenset({"dim_max", "dim_min", "dim_values", "values", "values_stable"})
# Namespaces of operators that change only the tensors that their name implies.
_KNOWN_NAMESPACES = ("aten.", "_operator.", "math.", "torch.sym_", "higher_order.")


def without_aliases(
    calls: Sequence[Call], outputs: Sequence[str], layouts: Mapping[str, Layout], limits: Limits
) -> Rewritten:
    """The calls of a program as calls that change no tensor.

    A change that cannot be followed is a call with a `problem`. Raises `ModelError` for malformed
    calls, and where more of them would be needed than `limits` has nodes.
    """
    rewriter = _Rewriter(layouts, limits)
    for call in calls:
        rewriter.add(call)
    final = tuple(rewriter.read(name) for name in outputs)
    return Rewritten(tuple(rewriter.calls), final, rewriter.versions, frozenset(rewriter.changed))


class Rewritten(NamedTuple):
    """A program without side effects."""

    calls: tuple[Call, ...]
    outputs: tuple[str, ...]
    versions: Mapping[str, str]  # of each new value, the tensor it is a version of
    changed: frozenset[str]  # the tensors whose storage the program changes


@dataclass(eq=False)
class _Storage:
    version: int = 0


@dataclass(eq=False)
class _Tensor:
    """A tensor of the program: the owner of a storage, or a view of another tensor."""

    name: str
    value: str  # of the rewritten program
    storage: _Storage
    version: int  # of the storage, when the value was made
    source: _Tensor | None = None
    view: Call | None = None  # makes it from the source, maybe among others
    index: int = 0  # among the outputs of the view
    write: Write = None


class _Rewriter:
    def __init__(self, layouts: Mapping[str, Layout], limits: Limits) -> None:
        self.calls: list[Call] = []
        self.versions: dict[str, str] = {}
        self.changed: set[str] = set()
        self._tensors: dict[str, _Tensor] = {}
        self._layouts = layouts
        self._limits = limits

    def read(self, name: str) -> str:
        """The value that a tensor of the program has now."""
        stale: list[_Tensor] = []
        tensor: _Tensor | None = self._tensor(name)
        while tensor is not None and tensor.version != tensor.storage.version:
            stale.append(tensor)
            tensor = tensor.source
        for view in reversed(stale):
            assert view.view is not None
            assert view.source is not None
            outputs = tuple(self._version(output) for output in view.view.outputs)
            arguments = {**view.view.arguments, _subject(view.view): Ref(view.source.value)}
            self._emit(replace(view.view, arguments=arguments, outputs=outputs))
            view.value, view.version = outputs[view.index], view.storage.version
        return self._tensor(name).value

    def add(self, call: Call) -> None:
        """Rewrites the next call of the program."""
        try:
            self._add(call)
        except Error:
            raise
        except Exception as error:  # of arguments that no exporter writes
            raise ModelError(f"{call.target}: malformed: {error!r}") from error

    def _add(self, call: Call) -> None:
        arguments = {name: self._current(content) for name, content in call.arguments.items()}
        current = replace(call, arguments=arguments)
        subject = call.arguments.get(_subject(call))
        namespace, _, overload = call.target.partition(f".{call.op}.")
        plain = _without_effect(call.op) if namespace == "aten" else None
        writes_out = has_out(overload) or (plain and not isinstance(subject, Ref))
        if writes_out or not call.target.startswith(_KNOWN_NAMESPACES):
            problem = (
                "changes its arguments in place; closest supported form: use of the returned tensor"
            )
            current = replace(current, problem=problem)
            for name in dict.fromkeys(ref.name for ref in call.refs()):
                self._change(self._tensor(name), current)
            self._define(call, current, None)
            return
        if plain is not None:
            target = f"aten.{plain}.{overload}"
            call, current = replace(call, target=target), replace(current, target=target)
        source = subject.name if isinstance(subject, Ref) and namespace == "aten" else None
        changes_look = plain in VIEWS or (source is not None and self._is_same(call, source))
        if source is None or plain is None or changes_look:
            self._define(call, current, source)
            return
        tensor = self._tensor(source)
        self._change(tensor, current)
        self._tensors.update(dict.fromkeys(call.outputs, tensor))

    def _define(self, call: Call, current: Call, source: str | None) -> None:
        """Adds a call that makes tensors of its own, or of the elements of its source."""
        if source is not None and len(call.outputs) == 1 and self._is_same(call, source):
            self._tensors[call.outputs[0]] = self._tensor(source)
            return
        self._emit(current)
        outputs = [self._layouts[output] for output in call.outputs]
        writer = VIEWS.get(call.op)
        if call.op in VIEWS_IF_POSSIBLE and source and self._is_viewable(source, outputs[0]):
            writer = _write_view
        for index, output in enumerate(call.outputs):
            tensor = _Tensor(output, output, _Storage(), 0)
            if writer is not None and source is not None:
                owner = self._tensor(source)
                tensor.storage, tensor.version = owner.storage, owner.storage.version
                tensor.source, tensor.view, tensor.index = owner, current, index
                tensor.write = writer(call, index, outputs)
            self._tensors[output] = tensor

    def _change(self, tensor: _Tensor, call: Call) -> None:
        """Gives a tensor, and all that it is a view of, the values that a call makes of it."""
        self.read(tensor.name)
        chain = [tensor]
        while chain[-1].source is not None:
            chain.append(chain[-1].source)
        storage = tensor.storage
        storage.version += 1
        self.changed.add(chain[-1].name)
        lost = next((view for view in chain[:-1] if view.write is None), None)
        if lost is not None and not call.problem:
            made = "" if lost.view is None else f", which {lost.view.target} makes,"
            problem = (
                f"changes {lost.name!r}{made} and with it {chain[-1].name!r}; closest supported "
                "form: an operator that returns a new tensor"
            )
            call = replace(call, problem=problem)
        if call.problem:
            self._emit(replace(call, outputs=tuple(self._version(item.name) for item in chain)))
            for item, value in zip(chain, self.calls[-1].outputs, strict=True):
                item.value, item.version = value, storage.version
            return
        value = self._version(tensor.name)
        self._emit(replace(call, outputs=(value,)))
        for item in chain:
            item.value, item.version = value, storage.version
            if item.source is not None and item.write is not None:
                target, arguments = item.write
                value = self._version(item.source.name)
                if target.endswith("_scatter.default"):
                    refs = {"self": Ref(item.source.value), "src": Ref(item.value)}
                else:
                    refs = {"self": Ref(item.value)}
                parts: Arguments = {**refs, **arguments}
                self._emit(Call(target, call.module, parts, (value,), call.node))

    def _tensor(self, name: str) -> _Tensor:
        if name not in self._tensors:  # an input, parameter or buffer
            self._tensors[name] = _Tensor(name, name, _Storage(), 0)
        return self._tensors[name]

    def _current(self, content: Any) -> Any:
        """An argument with the present values of tensors in their place."""
        if isinstance(content, list):
            return [self._current(item) for item in content]
        return Ref(self.read(content.name)) if isinstance(content, Ref) else content

    def _version(self, name: str) -> str:
        value = f"{name}@{len(self.versions)}"  # no name of PyTorch's has the sign
        self.versions[value] = name
        return value

    def _emit(self, call: Call) -> None:
        self.calls.append(call)
        self._limits.check("nodes", len(self.calls), "the calls of the program")

    def _is_same(self, call: Call, source: str) -> bool:
        if call.op in SAME_UNLESS_TRAINING:
            return not call.arguments.get("train")
        if call.op not in SAME_IF_NOTHING_CHANGES:
            return call.op in SAME
        before, after = self._layouts[source], self._layouts[call.outputs[0]]
        kept = before.dtype == after.dtype and before.strides == after.strides
        return kept and not call.arguments.get("copy")

    def _is_viewable(self, source: str, output: Layout) -> bool:
        """Whether a reshaped tensor is a view: every run of its source in memory is divided."""
        _, example, strides, _ = self._layouts[source]
        if example is None or strides is None or output.example is None:
            return False
        runs: list[int] = []
        last = 0
        for size, stride in zip(example, strides, strict=True):
            if size == 1:
                continue
            if runs and last == size * stride:
                runs[-1] *= size
            else:
                runs.append(size)
            last = stride
        sizes = iter([size for size in output.example if size != 1])
        for run in runs:
            covered = 1
            while covered < run:
                covered *= next(sizes, run + 1)
            if covered != run:
                return False
        return True


def has_out(overload: str) -> bool:
    """Whether an overload writes its results to tensors among the arguments."""
    return overload in _OUT_OVERLOADS or "out" in overload.split("_")


def _subject(call: Call) -> str:
    """The argument that an operator makes a view of, or changes."""
    return next(iter(call.arguments), "")


def _without_effect(op: str) -> str | None:
    """The operator that returns the changed subject of this one; None if it changes none."""
    if op in _IN_PLACE:
        return _IN_PLACE[op]
    return op[:-1] if op.endswith("_") and not op.startswith("__") else None
