# SPDX-License-Identifier: Apache-2.0
"""Programs that change tensors in place, which views share, give the results of PyTorch."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from qppengine import UnsupportedModelError, from_torch, reference

pytest.importorskip("torch")

import torch
import torch.nn.functional as F  # noqa: N812
from qppengine.importers.aliases import (
    SAME,
    SAME_IF_NOTHING_CHANGES,
    VIEWS,
    VIEWS_IF_POSSIBLE,
    has_out,
)
from qppengine.importers.registry import _IMPORTERS
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable

SHAPE = (1, 8, 5, 6)


class Net(nn.Module):  # type: ignore[misc]
    """What a function makes of a convolution's output, maybe with the state of the module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, SHAPE[1], 1)
        self.function = function
        self.register_buffer("average", torch.ones(1, SHAPE[1], 1, 1))

    def forward(self, x: Any) -> Any:
        y = self.conv(x)
        result = self.function(y)
        return y if result is None else result


class Stateful(Net):
    def forward(self, x: Any) -> Any:
        return self.function(self, self.conv(x))


def assert_same(function: Callable[..., Any], kind: type[Net] = Net) -> None:
    torch.manual_seed(0)
    module = kind(function).eval()
    x = torch.randn(1, 3, *SHAPE[2:])
    graph = from_torch(module, x, dynamic_shapes=(None,))
    with torch.no_grad():
        expected = module(x.clone())
    expected = expected if isinstance(expected, tuple) else (expected,)
    outputs = reference.run(graph, x.numpy())
    for y, e in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(y.reshape(e.shape), e.numpy(), rtol=1e-4, atol=1e-4)


def change(view: Callable[[Any], Any]) -> Callable[[Any], None]:
    def function(y: Any) -> None:
        view(y).mul_(3).relu_()

    return function


@pytest.mark.parametrize(
    "view",
    [
        lambda y: y[:, :4],
        lambda y: y[:, -3:],
        lambda y: y[..., 1:3],
        lambda y: y[:, :, 4:],
        lambda y: y[:, 2],
        lambda y: y[:, :, -1],
        lambda y: y[0],
        lambda y: y[0, 3],
        lambda y: y[:],
        lambda y: y[:, :6][:, 2:][:, 1:3],
        lambda y: y[:, 2:6, 1:4, 2:],
        lambda y: y.narrow(1, 2, 3),
        lambda y: y.chunk(3, 1)[1],
        lambda y: y.split(3, 1)[2],
        lambda y: y.split((1, 5, 2), 1)[1],
        lambda y: y.chunk(2, 2)[0],
        lambda y: y.unbind(1)[5],
        lambda y: y.view(1, 2, 4, 5, 6),
        lambda y: y.view(1, 2, 20, 6)[:, 1],
        lambda y: y.reshape(1, 8, 30),
        lambda y: y.flatten(1),
        lambda y: y.flatten(2)[:, :, 7:],
        lambda y: y.unsqueeze(1),
        lambda y: y.unsqueeze(1).squeeze(1),
        lambda y: y.permute(0, 2, 3, 1),
        lambda y: y.permute(0, 2, 3, 1)[..., 2:5],
        lambda y: y.transpose(1, 3),
        lambda y: y.swapaxes(2, 3),
        lambda y: y.mT,
        lambda y: y.detach(),
        lambda y: y.contiguous().to(torch.float32),
        lambda y: F.dropout(y, training=False)[:, 1:],
        lambda y: F.dropout(y, training=False, inplace=True)[:, 2:],
        lambda y: y.view_as(y),
        lambda y: y.unflatten(1, (2, 4)),
    ],
)
def test_a_change_of_a_view_changes_what_it_shows(view: Callable[[Any], Any]) -> None:
    assert_same(change(view))


@pytest.mark.parametrize(
    "copy",
    [
        lambda y: y.clone(),
        lambda y: y.permute(0, 2, 3, 1).contiguous(),
        lambda y: y.permute(0, 2, 3, 1).reshape(1, 30, 8),
        lambda y: y.transpose(1, 2).flatten(1),
        lambda y: torch.cat([y, y], 1),
        lambda y: y + 0,
        lambda y: y.to(torch.float32, copy=True),
        lambda y: y.repeat(1, 2, 1, 1),
    ],
)
def test_a_change_of_a_copy_changes_nothing_else(copy: Callable[[Any], Any]) -> None:
    def function(y: Any) -> Any:
        other = copy(y)
        other.mul_(3).relu_()
        return y, other

    assert_same(function)


def assign(y: Any) -> Any:
    y[:, 0] = 5
    y[:, 1:3] = y[:, 3:5]
    y[:, 5] = torch.tensor(3.0)
    y[:, :, 1] = torch.arange(8.0)[None, :, None]
    y[..., 2:4].zero_()
    y[:, 6:].fill_(-1)


def views_see_changes_of_each_other(y: Any) -> Any:
    first, second, flat = y[:, :5], y[:, 3:], y.flatten(1)
    first.add_(1)
    before = second * 1
    second.clamp_(0, 1)
    y.mul_(2)
    return first, second, flat, before, y


def same_object(y: Any) -> Any:
    x = y
    x += 1
    return y + x, y


def filled_output(y: Any) -> Any:
    out = torch.zeros_like(y)
    out[:, 2:5] = y[:, :3]
    wide = torch.full((1, 8, 7, 8), 0.0)
    wide[:, :, 1:6, 1:7] = y
    parts = torch.empty(1, 8, 5, 6)
    parts[:, :4] = y[:, 4:].sigmoid()
    parts[:, 4:] = y[:, :4]
    return out, wide, parts


def changed_look(y: Any) -> Any:
    z = y.detach().unsqueeze_(1).squeeze_(1).transpose_(2, 3)
    z.relu_()
    return y, z


def constants_changed(y: Any) -> Any:
    mask = torch.ones(8, dtype=torch.bool)
    mask[2:4] = False
    mask &= torch.arange(8) != 6
    weights = torch.zeros(2, 4)
    weights[1, 2:] += 3
    weights.view(-1)[:2].sub_(1)
    return y * mask.float()[None, :, None, None] + weights.reshape(1, 8, 1, 1)


def copied_in_place(y: Any) -> Any:
    z = torch.empty_like(y)
    z.copy_(y)
    z.relu_()
    y[:, :1].copy_(y.mean((2, 3), keepdim=True)[:, :1])
    return y, z


def operand_of_itself(y: Any) -> Any:
    y[:, 4:].add_(y[:, :4])
    y.mul_(y)


def base_changed_after_view(y: Any) -> Any:
    v = y[:, :4]
    y.relu_()
    return v


@pytest.mark.parametrize(
    "function",
    [
        assign,
        views_see_changes_of_each_other,
        same_object,
        filled_output,
        changed_look,
        constants_changed,
        copied_in_place,
        operand_of_itself,
        base_changed_after_view,
    ],
)
def test_functions_that_change_tensors(function: Callable[[Any], Any]) -> None:
    assert_same(function)


@pytest.mark.parametrize("seed", range(24))
def test_random_changes_of_random_views(seed: int) -> None:
    """Any order of views, changes and reads gives the results of PyTorch."""
    views: list[Callable[[Any], Any]] = [
        lambda y: y[:, y.shape[1] // 2 :],
        lambda y: y[:, :, :3],
        lambda y: y[..., y.shape[-1] // 3 :],
        lambda y: y.transpose(2, 3),
        lambda y: y.permute(0, 3, 1, 2),
        lambda y: y.reshape(1, y.shape[1], -1, 1),
        lambda y: y.contiguous(),
        lambda y: y.chunk(2, 1)[0],
        lambda y: y.detach(),
        lambda y: y.clone(),
    ]
    changes: list[Callable[[Any], Any]] = [
        lambda y: y.mul_(1.5),
        lambda y: y.relu_(),
        lambda y: y.add_(0.25),
        lambda y: y.clamp_(-1, 1),
        lambda y: y[:, :1].fill_(0.5),
        lambda y: y.tanh_(),
    ]

    def function(y: Any) -> Any:
        rng = random.Random(seed)
        alive = [y]
        for _ in range(8):
            y = alive[rng.randrange(len(alive))]
            if rng.random() < 0.55:
                alive.append(rng.choice(views)(y))
            else:
                rng.choice(changes)(y)
        return tuple(y * 1 for y in alive)

    assert_same(function)


def test_inputs_are_changed_for_the_network_alone() -> None:
    class First(nn.Module):  # type: ignore[misc]
        def forward(self, x: Any) -> Any:
            x.relu_()
            return x + 1

    x = torch.randn(1, 2, 3, 4)
    graph = from_torch(First(), x.clone())
    given = x.numpy().copy()
    (y,) = reference.run(graph, given)
    np.testing.assert_array_equal(given, x.numpy())
    np.testing.assert_allclose(y, x.relu().numpy() + 1)


def running_average(self: Any, y: Any) -> Any:
    self.average.mul_(0.9).add_(y.mean((2, 3), keepdim=True))
    return y - self.average


def previous(self: Any, y: Any) -> Any:
    result = y - self.average
    self.average.copy_(y.mean((2, 3), keepdim=True))
    return result


@pytest.mark.parametrize("function", [running_average, previous])
def test_networks_with_a_state_are_refused(function: Any) -> None:
    with pytest.raises(UnsupportedModelError, match=r"buffer 'average' is changed by every run"):
        from_torch(Stateful(function), torch.randn(1, 3, 5, 6))


def test_a_state_that_no_output_depends_on_does_not_matter() -> None:
    def count(self: Any, y: Any) -> Any:
        self.average.add_(1)
        return y.relu()

    assert_same(count, Stateful)


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (lambda y: y.unfold(3, 2, 2).relu_(), r"aten\.relu\.default: changes 'unfold', which"),
        (lambda y: y.diagonal(0, 2, 3).add_(1), r"changes 'diagonal'"),
        (lambda y: y[:, ::2].relu_(), "change of every second element"),
        (lambda y: y.index_put_((y > 0,), torch.zeros(())), r"index_put\.default: not supported"),
        (lambda y: torch.add(y, 1, out=y), "changes its arguments in place"),
    ],
)
def test_changes_that_are_not_followed_are_refused(function: Any, problem: str) -> None:
    def changed(y: Any) -> None:
        function(y)

    with pytest.raises(UnsupportedModelError, match=problem):
        from_torch(Net(changed), torch.randn(1, 3, 5, 6), dynamic_shapes=(None,))


def test_a_change_nobody_sees_is_none() -> None:
    def function(y: Any) -> Any:
        z = y * 2
        y.unfold(3, 2, 2).relu_()
        return z

    assert_same(function)


def test_every_operator_that_makes_views_or_changes_tensors_is_known() -> None:
    """By the aliases in the schemas of ATen's operators."""
    known = {*VIEWS, *SAME, *SAME_IF_NOTHING_CHANGES, *VIEWS_IF_POSSIBLE}
    imported = {target.split(".")[1] for target in _IMPORTERS if target.startswith("aten.")}
    # Of sparse tensors, and names that are functions of Python's as well.
    other = {"ccol_indices", "coalesce", "col_indices", "crow_indices", "indices", "row_indices"}
    other |= {"as_tensor", "copy", "setdefault", "slice_inverse", "sorted", "values"}
    for schema in torch._C._jit_get_all_schemas():
        name = schema.name.removeprefix("aten::")
        tensors = [a for a in schema.arguments if str(a.type) == "Tensor" and a.alias_info]
        if not schema.name.startswith("aten::") or name.startswith("_") or name in other:
            continue
        if not any(argument.alias_info.is_write for argument in tensors):
            assert not tensors or name in known, schema
        elif name.removesuffix("_") in imported:
            assert name.endswith("_") or has_out(schema.overload_name), schema
