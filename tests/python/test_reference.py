# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from qppengine import Graph, GraphBuilder, ShapeError, reference
from qppengine.metrics import sqnr
from qppengine.qparams import QParams, quantize_weight

if TYPE_CHECKING:
    from qppengine.ir import Array

torch = pytest.importorskip("torch")
RNG = np.random.default_rng(4)


def normal(*shape: int) -> Array:
    return RNG.standard_normal(shape, np.float32)


def run_one(make: Any, x: Array) -> Array:
    net = GraphBuilder("g")
    net.output(make(net, net.input("x", x.shape)))
    (y,) = reference.run(net.build(), x)
    return y


def assert_equal(y: Array, expected: Any) -> None:
    np.testing.assert_allclose(y, expected.numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bias", [None, normal(6)])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"),
    [
        ((3, 3), (1, 1), (1, 1), (1, 1)),
        ((5, 5), (1, 1), (2, 2), (1, 1)),
        ((1, 1), (2, 2), (0, 0), (1, 1)),
        ((2, 4), (2, 3), (1, 0), (1, 1)),
        ((3, 2), (1, 2), (0, 3), (2, 3)),
    ],
)
def test_convolution_is_that_of_torch(
    kernel: Any, stride: Any, padding: Any, dilation: Any, bias: Any
) -> None:
    x, weight = normal(2, 3, 13, 17), normal(6, 3, *kernel)
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    y = run_one(lambda net, v: net.conv2d(v, weight, bias, **options), x)
    tensors = (None if t is None else torch.from_numpy(t) for t in (x, weight, bias))
    assert_equal(y, torch.nn.functional.conv2d(*tensors, **options))


def test_elementwise_operations_are_those_of_torch() -> None:
    x = normal(2, 4, 5, 6)
    t = torch.from_numpy(x)
    assert_equal(run_one(lambda net, v: net.relu(v), x), torch.relu(t))
    assert_equal(run_one(lambda net, v: net.tanh(v), x), torch.tanh(t))
    assert_equal(run_one(lambda net, v: net.clamp(v, -0.5, 1), x), torch.clamp(t, -0.5, 1))
    assert_equal(run_one(lambda net, v: net.activation(v, "none"), x), t)
    stats = [normal(4), normal(4), normal(4), RNG.uniform(0.5, 2, 4).astype(np.float32)]
    weight, bias, mean, var = map(torch.from_numpy, stats)
    expected = torch.nn.functional.batch_norm(t, mean, var, weight, bias, eps=0.01)
    assert_equal(run_one(lambda net, v: net.batch_norm(v, *stats, eps=0.01), x), expected)


def test_pixel_shuffle_is_that_of_torch() -> None:
    x = normal(2, 18, 3, 4)
    expected = torch.nn.functional.pixel_shuffle(torch.from_numpy(x), 3)
    assert_equal(run_one(lambda net, v: net.pixel_shuffle(v, 3), x), expected)


def test_inputs_must_fit(graph: Graph) -> None:
    with pytest.raises(ShapeError, match="expected 1 inputs, got 0"):
        reference.run(graph)
    with pytest.raises(ShapeError, match="head: the weight takes 3 channels, 'x' has 4"):
        reference.run(graph, normal(1, 4, 8, 8))


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize(
    ("lo", "hi"), [(-1.0, 1.0), (0.0, 3.0), (0.5, 2.0), (-7.0, -1.0), (-0.1, 40.0)]
)
def test_quantization_covers_the_bounds_and_zero_exactly(lo: float, hi: float, bits: int) -> None:
    params = QParams.from_bounds(lo, hi, bits)
    x = np.linspace(min(lo, 0), max(hi, 0), 1001, dtype=np.float32)
    q = params.quantize(x)
    # Rounding the zero point moves the grid against the bounds by up to half a step.
    assert q.min() in (-(2 ** (bits - 1)), 1 - 2 ** (bits - 1))
    assert q.max() in (2 ** (bits - 1) - 2, 2 ** (bits - 1) - 1)
    assert np.abs(params.dequantize(q) - x).max() <= params.scale * 1.001
    # The inverse of the step has the precision of fp16, at the price of a thousandth.
    assert np.float16(params.inverse_scale) == params.inverse_scale
    step = np.float32(max(hi, 0) - min(lo, 0)) / (2**bits - 1)
    assert step * 0.999999 <= params.scale <= step * 1.001
    zero = np.zeros(1, np.float32)
    assert params.dequantize(params.quantize(zero)) == 0
    np.testing.assert_array_equal(params.quantize(params.dequantize(q)), q)


def test_values_beyond_the_bounds_saturate() -> None:
    params = QParams.from_bounds(-1, 1, 8)
    beyond = np.array([-5, 5, -np.inf, np.inf], np.float32)
    assert params.quantize(beyond).tolist() == [-128, 127, -128, 127]


def test_halves_round_to_even() -> None:
    params = QParams(np.float32(1), np.float32(1), 0, 8)
    halves = np.array([0.5, 1.5, 2.5, -0.5, -1.5], np.float32)
    assert params.quantize(halves).tolist() == [0, 2, 2, 0, -2]


def test_a_value_that_is_zero_everywhere_stays_zero() -> None:
    params = QParams.from_bounds(0, 0, 8)
    zeros = np.zeros(4, np.float32)
    np.testing.assert_array_equal(params.dequantize(params.quantize(zeros)), zeros)


def test_weights_use_all_of_int8_in_every_channel() -> None:
    weight = normal(5, 4, 3, 3)
    weight[2] = 0
    q, scale = quantize_weight(weight)
    assert np.abs(q).max(axis=(1, 2, 3)).tolist() == [127, 127, 0, 127, 127]
    stored = weight.astype(np.float16).astype(np.float32)
    error = np.abs(q * scale[:, None, None, None] - stored)
    assert (error <= 0.5001 * scale[:, None, None, None]).all()


def test_quantized_run_approaches_float_with_more_bits(graph: Graph, samples: list[Array]) -> None:
    x = samples[0]
    values = reference.run_all(graph, x)
    bounds = {name: (values[name].min(), values[name].max()) for name in graph.quantized_values}
    ratios = [
        sqnr(
            reference.run_quantized(graph, bounds, x, activation_bits=b)["shuffle"],
            values["shuffle"],
        )
        for b in (2, 4, 6, 8)
    ]
    assert ratios == sorted(ratios)
    assert ratios[-1] > 35


def test_quantized_convolution_is_exact_on_integers() -> None:
    """Bounds and weights on integers leave nothing to round: the float result comes out."""
    weight = RNG.integers(-126, 127, (4, 3, 3, 3)).astype(np.float32)
    weight[:, 0, 0, 0] = 127  # the scale of every channel is 1
    x = RNG.integers(-128, 128, (1, 3, 6, 7)).astype(np.float32)
    net = GraphBuilder("g")
    net.output(net.conv2d(net.input("x", x.shape), weight, padding=1, name="y"))
    graph = net.build()
    quantized = reference.run_quantized(graph, {"x": (-128.0, 127.0)}, x)
    np.testing.assert_array_equal(quantized["y"], reference.run(graph, x)[0])


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kind", ["max", "dilated", "average", "inside"])
def test_pools_in_ceil_mode_are_those_of_torch(kind: str, stride: int) -> None:
    """Images can be smaller than a window by less than a stride; smaller ones are refused."""
    options: dict[str, Any] = {"stride": stride, "ceil_mode": True}
    if kind in ("average", "inside"):
        name = "avg_pool2d"
        options["count_include_pad"] = kind == "average"
    else:
        name = "max_pool2d"
        options["dilation"] = 2 if kind == "dilated" else 1
    for size, kernel, padding in itertools.product(range(1, 7), (2, 3, 5), (0, 1)):
        x = normal(1, 2, size, size)
        net = GraphBuilder("g")
        image = net.input("x", (1, 2, None, None))
        net.output(getattr(net, name)(image, kernel, padding=padding, **options))
        torch_pool = getattr(torch.nn.functional, name)
        try:
            expected = torch_pool(torch.from_numpy(x), kernel, padding=padding, **options)
        except RuntimeError:
            with pytest.raises(ShapeError, match="smaller than the window"):
                reference.run(net.build(), x)
            continue
        if torch.isfinite(expected).all():  # else a window holds padding alone
            (y,) = reference.run(net.build(), x)
            assert_equal(y, expected)
