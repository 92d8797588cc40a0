# SPDX-License-Identifier: Apache-2.0
"""What a PyTorch program computes from constants alone is computed at import, as PyTorch does."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from qppengine import (
    Limits,
    ModelError,
    UnsupportedError,
    UnsupportedModelError,
    from_torch,
    reference,
)
from qppengine.importers import constants
from qppengine.importers.program import Call
from qppengine.importers.pt2 import read_pt2
from qppengine.importers.registry import to_graph

pytest.importorskip("torch")

import torch
import torch.nn.functional as F  # noqa: N812
import torch.nn.utils.prune
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable


class Net(nn.Module):  # type: ignore[misc]
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.register_buffer("blur", torch.rand(1, 1, 3, 3))
        self.register_buffer("wide", torch.rand(1, 1, 3, 3).expand(3, 1, 3, 3))
        self.register_buffer("mask", torch.rand(4, 1, 1) > 0.5)
        self.register_buffer("index", torch.tensor([2, 0, 3, 1]))
        self.function = function

    def forward(self, x: Any) -> Any:
        return self.function(self, x)


def assert_same(module: Any, x: Any) -> None:
    module.eval()
    graph = from_torch(module, x)
    with torch.no_grad():
        expected = module(x).numpy()
    (y,) = reference.run(graph, x.numpy())
    np.testing.assert_allclose(y.reshape(expected.shape), expected, rtol=1e-4, atol=1e-4)


# Each makes a constant of the buffers and weights of `Net`; its result scales the channels.
VECTORS: dict[str, Callable[[Any], Any]] = {
    "tensor": lambda m: torch.tensor([0.4, 0.5, 0.6, 0.7]),
    "ones": lambda m: torch.ones(4) * 3,
    "full": lambda m: torch.full((4,), 2.5) + torch.zeros(4),
    "like": lambda m: torch.ones_like(m.conv.bias) + m.conv.bias.new_full((4,), 2),
    "arange": lambda m: torch.arange(4) / 3 + torch.arange(1, 9, 2),
    "linspace": lambda m: torch.linspace(-1, 1, 4) ** 2,
    "cast": lambda m: m.mask.flatten().float() + m.index.to(torch.float32),
    "mask": lambda m: torch.where(m.mask.flatten(), m.conv.bias, torch.tensor(2.0)),
    "masked": lambda m: m.conv.bias.masked_fill(m.mask.flatten(), -1.5),
    "index": lambda m: m.conv.bias.index_select(0, m.index) + m.conv.bias.flip(0),
    "slices": lambda m: torch.cat([m.conv.bias[2:], m.conv.bias[:2].neg()]),
    "stack": lambda m: torch.stack([m.conv.bias[1], m.conv.bias[-1]]).repeat(2),
    "interleave": lambda m: m.conv.bias[:2].repeat_interleave(2),
    "chunks": lambda m: torch.cat(m.conv.bias.chunk(2)[::-1]) + m.conv.bias.unbind(0)[3],
    "norm": lambda m: m.conv.weight.flatten(1).norm(dim=1) + m.conv.weight.norm(),
    "norms": lambda m: sum(
        m.conv.bias.relu().view(2, 2).norm(p, dim=1) for p in (0, 1, 3, np.inf, -np.inf)
    ).repeat(2),
    "decimals": lambda m: m.conv.bias.round(decimals=1),
    "sums": lambda m: m.conv.weight.sum((1, 2, 3)) + m.conv.weight.mean() + m.conv.weight.amax(),
    "var": lambda m: m.conv.weight.var((1, 2, 3)) + m.conv.weight.var((1, 2, 3), correction=0),
    "functions": lambda m: m.conv.bias.exp().sqrt().log().sin() * m.conv.bias.abs().rsqrt(),
    "gates": lambda m: torch.sigmoid(m.conv.bias) * F.softplus(m.conv.bias) - F.relu(m.conv.bias),
    "clamps": lambda m: m.conv.bias.clamp(-0.1, 0.1) + m.conv.bias.clamp(min=0.05),
    "softmax": lambda m: torch.softmax(m.conv.bias * 9, 0).cumsum(0),
    "matrix": lambda m: m.conv.weight.flatten(1) @ m.conv.weight.flatten(1).t()[:, 0],
    "triangle": lambda m: torch.tril(m.conv.bias.expand(4, 4)).sum(1) + torch.eye(4)[2],
    "meshgrid": lambda m: torch.meshgrid(m.conv.bias, m.index.float(), indexing="ij")[0].mean(1),
    "integers": lambda m: ((m.index + 1) // 2 * 3 % 4).float() + m.index.remainder(3).double(),
    "bytes": lambda m: (m.index.to(torch.uint8) * -1).float() / 255 + m.index.byte().sub(3).div(9),
    "compare": lambda m: ((m.index > 1) & (m.index != 3) | (m.index == 0)).float() + 0.5,
    "half": lambda m: m.conv.bias.half().float() * 1.5,
}


@pytest.mark.parametrize("name", VECTORS)
def test_constants_scale_channels(name: str) -> None:
    torch.manual_seed(1)
    vector = VECTORS[name]
    x = torch.rand(1, 3, 8, 8)
    assert_same(Net(lambda m, x: m.conv(x) * vector(m)[:, None, None].to(torch.float32)), x)


NETS: dict[str, Callable[[Any, Any], Any]] = {
    "repeated kernel": lambda m, x: F.conv2d(x, m.blur.repeat(3, 1, 1, 1), groups=3),
    "expanded kernel": lambda m, x: F.conv2d(x, m.blur.expand(3, 1, 3, 3), groups=3),
    "stride 0": lambda m, x: F.conv2d(x, m.wide, groups=3),
    "arithmetic": lambda m, x: F.conv2d(x, m.conv.weight * 2 + 1, m.conv.bias),
    "transposed": lambda m, x: F.conv_transpose2d(m.conv(x), m.conv.weight.transpose(2, 3) / 2),
    "standardized": lambda m, x: F.conv2d(
        x,
        (m.conv.weight - m.conv.weight.mean((1, 2, 3), keepdim=True))
        / (m.conv.weight.std((1, 2, 3), keepdim=True) + 1e-5),
    ),
    "uniform image": lambda m, x: m.conv(x) + torch.ones(1, 4, 6, 6) * m.conv.bias[:, None, None],
    "mean": lambda m, x: m.conv(x - torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1)),
    "cast of an image": lambda m, x: m.conv(x.to(torch.float32)).float(),
    "batch norm": lambda m, x: F.batch_norm(m.conv(x), torch.zeros(4), torch.ones(4) * 2),
    "linear": lambda m, x: F.linear(x.mean((2, 3)), m.conv.weight.mean((2, 3)) * 3),
}


@pytest.mark.filterwarnings("ignore::qppengine.FixedSizesWarning")
@pytest.mark.parametrize("name", NETS)
def test_networks_with_constants(name: str) -> None:
    torch.manual_seed(1)
    assert_same(Net(NETS[name]), torch.rand(1, 3, 8, 8))


@pytest.mark.filterwarnings("ignore:.*was assigned during export")
@pytest.mark.parametrize(
    "change",
    [
        nn.utils.parametrizations.weight_norm,
        lambda conv: nn.utils.parametrizations.weight_norm(conv, dim=None),
        nn.utils.parametrizations.spectral_norm,
        lambda conv: torch.nn.utils.prune.random_unstructured(conv, "weight", 0.5),
    ],
)
def test_parametrized_weights(change: Callable[[Any], Any]) -> None:
    torch.manual_seed(1)
    module = Net(lambda m, x: m.conv(x))
    change(module.conv)
    assert_same(module, torch.rand(1, 3, 8, 8))


def test_constants_that_nobody_reads_cost_nothing() -> None:
    def function(m: Any, x: Any) -> Any:
        torch.ones(2**20, 2**20)
        return m.conv(x)

    program = torch.export.export(Net(function).eval(), (torch.rand(1, 3, 8, 8),))
    assert len(from_torch(program).nodes) == 1


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (lambda m, x: m.conv(x) * torch.erfinv(m.conv.bias)[:, None, None], "erfinv"),
        (lambda m, x: m.conv(x) + torch.rand(4, 6, 6) * m.conv.bias[:, None, None], "rand"),
        (lambda m, x: m.conv(x) + torch.arange(36.0).view(6, 6), "elements differ between pixels"),
        (lambda m, x: m.conv(x) * m.conv.bias.view(torch.int32)[:, None, None], r"view\.dtype"),
        (lambda m, x: (m.conv(x), m.conv.bias * 2), "does not depend on an input"),
    ],
)
def test_constants_that_cannot_be_computed_are_refused(function: Any, problem: str) -> None:
    with pytest.raises(UnsupportedModelError, match=problem):
        from_torch(Net(function), torch.rand(1, 3, 8, 8))


def test_constants_of_an_enormous_size_are_refused() -> None:
    module = Net(lambda m, x: m.conv(x) * torch.ones(2**15, 2**15).mean()).eval()
    with pytest.raises(ModelError, match=r"limit computed_bytes .* limits=Limits\(computed_bytes"):
        from_torch(module, torch.rand(1, 3, 8, 8))


def test_a_stored_tensor_of_stride_0_is_no_larger_than_others_may_be() -> None:
    class Wide(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weight", torch.ones(1, 1, 1, 1).expand(2**12, 2**12, 1, 1))

        def forward(self, x: Any) -> Any:
            return F.conv2d(x, self.weight)

    program = torch.export.export(Wide(), (torch.rand(1, 2**12, 1, 1),))
    with pytest.raises(ModelError, match="limit computed_bytes"):
        from_torch(program)
    graph = from_torch(program, limits=Limits(computed_bytes=2**27))
    assert graph.nodes[0].tensors["weight"].shape == (2**12, 2**12, 1, 1)


def test_a_result_is_of_the_size_that_the_program_states() -> None:
    call = Call("aten.repeat.default", "", {"self": None, "repeats": [2**40]}, ("y",))
    arguments = {"self": np.ones(4, np.float32), "repeats": [2**40]}
    with pytest.raises(UnsupportedError, match="elements"):
        constants.fold(call, arguments, [(4,)], [np.dtype(np.float32)])


def test_tensors_of_one_storage_take_its_memory_once() -> None:
    class Shared(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: Any) -> Any:
            for _ in range(4):
                x = self.conv(x)
            return x

    buffer = io.BytesIO()
    torch.export.save(torch.export.export(Shared(), (torch.rand(1, 3, 8, 8),)), buffer)
    graph = to_graph(read_pt2(buffer.getvalue()))
    assert len({id(node.tensors["weight"]) for node in graph.nodes}) == 1


@pytest.mark.filterwarnings("ignore::qppengine.FixedSizesWarning")
@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: x * x[:, :, :1],
        lambda m, x: x[..., -1:] + x,
        lambda m, x: x - x[:, :, :1, :1],
        lambda m, x: x.narrow(1, -2, 2),
    ],
)
def test_parts_of_an_input(function: Any) -> None:
    assert_same(Net(function), torch.rand(1, 3, 5, 6))
