# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import io
import json
import re
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import qppengine.models
from mutations import replace_value
from qppengine import (
    Error,
    FileError,
    ModelError,
    UnsupportedError,
    UnsupportedModelError,
    from_torch,
    reference,
)
from qppengine.importers.pt2 import read_pt2
from qppengine.importers.registry import importer, to_graph

pytest.importorskip("torch")

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

ESPCN = Path(qppengine.models.__file__).parent / "espcn_x3.pt2"


class Block(nn.Module):  # type: ignore[misc]
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding="same", bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Any) -> Any:
        return F.relu(self.norm(self.conv(x)))


class Net(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(1, 8, 5, padding=2)
        self.layers = nn.Sequential(Block(8), nn.Dropout(), Block(8), nn.Identity(), nn.ReLU6())
        self.tail = nn.Conv2d(8, 8, (1, 3), stride=(1, 2), dilation=(1, 2), padding="valid")

    def forward(self, x: Any) -> Any:
        x = torch.tanh(self.tail(self.layers(self.head(x))))
        return F.pixel_shuffle(torch.tanh(x), 2)


def randomize(module: Any, seed: int = 0) -> Any:
    """Gives every parameter and statistic a value that is not a default."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) - 0.3 * ("var" not in name))
    return module.eval()


def assert_same(module: Any, graph: qppengine.Graph, *inputs: Any) -> None:
    with torch.no_grad():
        expected = module(*inputs)
    expected = expected if isinstance(expected, tuple) else (expected,)
    outputs = reference.run(graph, *(x.numpy() for x in inputs))
    for y, e in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(y, e.numpy(), rtol=1e-4, atol=1e-4)


def test_network_is_imported_with_its_module_paths() -> None:
    module = randomize(Net())
    graph = from_torch(module, torch.rand(1, 1, 12, 14))
    assert graph.name == "Net"
    assert [node.name for node in graph.nodes] == [
        "head",
        "layers.0.conv",
        "layers.2.conv",
        "layers.4",
        "tail",
        "tanh_1",
        "pixel_shuffle",
    ]
    assert graph.shapes["x"] == (1, 1, None, None)
    assert_same(module, graph, torch.rand(1, 1, 12, 14))
    assert_same(module, graph, torch.rand(1, 1, 9, 21))


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(2, 3, 3),
        nn.Conv2d(2, 3, 3, padding=1, bias=False),
        nn.Conv2d(2, 3, (2, 3), stride=(2, 1), padding=(1, 0), dilation=2),
        nn.Conv2d(2, 3, (3, 5), padding="same"),
        nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)),
        nn.BatchNorm2d(2),
        nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3, affine=False, eps=0.1)),
        nn.Sequential(nn.ReLU(), nn.Conv2d(2, 3, 3), nn.ReLU(inplace=True)),
        nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh()),
        nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU6()),
        nn.Sequential(nn.Conv2d(2, 3, 3), nn.Hardtanh()),
        nn.Hardtanh(-0.25, 0.5),
        nn.Sequential(nn.Conv2d(2, 8, 1), nn.PixelShuffle(2)),
        nn.Sequential(nn.Conv2d(2, 3, 3), nn.Dropout2d(), nn.Identity()),
    ],
    ids=repr,
)
def test_modules_compute_what_they_do_in_torch(module: Any) -> None:
    module = randomize(module)
    x = torch.rand(1, 2, 7, 9) - 0.5
    assert_same(module, from_torch(module, x), x)


class Functional(nn.Module):  # type: ignore[misc]
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.function = function

    def forward(self, x: Any) -> Any:
        return self.function(self.conv, x)


def branches_of_a_tensor_changed_in_place(conv: Any, x: Any) -> Any:
    y = conv(x)
    before = y.clone()
    alias = F.dropout(y, training=False)
    torch.relu_(alias)
    return before, torch.tanh(y), alias.clamp_(max=0.5)


@pytest.mark.parametrize(
    "function",
    [
        lambda conv, x: conv(x).clamp(-0.2, 0.3),
        lambda conv, x: conv(x).clamp(min=0),
        lambda conv, x: conv(x).clamp(min=0.1),
        lambda conv, x: conv(x).clamp(max=0.1),
        lambda conv, x: torch.clamp_min(conv(x), -0.1),
        lambda conv, x: torch.clamp_max(conv(x), 1),
        lambda conv, x: F.hardtanh(conv(x), -float("inf"), 0.2),
        lambda conv, x: F.relu6(conv(x), inplace=True),
        lambda conv, x: conv(x).contiguous().detach().tanh_(),
        lambda conv, x: (conv(x), conv(F.relu(x))),
        lambda conv, x: F.conv2d(x, conv.weight, padding=1),
        branches_of_a_tensor_changed_in_place,
    ],
)
def test_functions_compute_what_they_do_in_torch(function: Any) -> None:
    module = randomize(Functional(function))
    x = torch.rand(1, 1, 7, 9) - 0.5
    assert_same(module, from_torch(module, x), x)


def test_several_inputs_and_outputs_keep_their_order() -> None:
    class Two(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(1, 2, 3), nn.Conv2d(3, 4, 3)

        def forward(self, left: Any, right: Any) -> Any:
            return self.b(right), self.a(left)

    module = randomize(Two())
    inputs = torch.rand(1, 1, 5, 6), torch.rand(1, 3, 7, 8)
    graph = from_torch(module, inputs)
    assert [value.name for value in graph.inputs] == ["left", "right"]
    assert graph.outputs == ("b", "a")
    assert_same(module, graph, *inputs)


SCALES = (0.5, 0.7, 0.99, 1.0, 1.01, 1.1, 1.3, 1.5, 1.7, 2.0, 2.05, 2.3, 2.5, 2.9, 3.2)


class Resized(nn.Module):  # type: ignore[misc]
    """An image at several scales."""

    def __init__(self, scales: Any = SCALES, **options: Any) -> None:
        super().__init__()
        self.scales, self.options = scales, options

    def forward(self, x: Any) -> Any:
        return tuple(
            F.interpolate(x, scale_factor=(scale, 2.1), **self.options) for scale in self.scales
        )


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "nearest"},
        {"mode": "nearest-exact"},
        {"mode": "bilinear"},
        {"mode": "bilinear", "align_corners": True},
        {"mode": "nearest", "recompute_scale_factor": True},
        {"mode": "bilinear", "recompute_scale_factor": True},
    ],
    ids=str,
)
def test_images_are_resized_as_in_torch(options: Any) -> None:
    """Where a size stays, or doubles in mode nearest, PyTorch does not look at the scale."""
    module = Resized(**options)
    for size in (2, 3, 7):
        x = torch.rand(1, 1, size, 8)
        assert_same(module, from_torch(module, x, dynamic_shapes={}), x)
    if "recompute_scale_factor" not in options:  # else sizes are expressions
        graph = from_torch(module, torch.rand(1, 1, 8, 8))
        assert graph.inputs[0].shape == (1, 1, None, None)
        for size in (2, 3, 5, 7, 10, 33, 101):
            assert_same(module, graph, torch.rand(1, 1, size, size))


def test_antialias_is_refused_by_name() -> None:
    module = Resized((0.5,), mode="bilinear", antialias=True)
    with pytest.raises(UnsupportedModelError, match="interpolate without antialias"):
        from_torch(module, torch.rand(1, 1, 8, 8))


def test_live_module_keeps_its_training_mode() -> None:
    module = Net()
    module.layers[0].eval()
    from_torch(module, np.zeros((1, 1, 8, 9), np.float32))
    assert module.training
    assert not module.layers[0].training
    assert module.layers[2].norm.training


def test_dynamic_shapes_can_be_given() -> None:
    x = torch.rand(2, 1, 8, 8)
    static = from_torch(nn.Conv2d(1, 1, 3), x, dynamic_shapes={})
    assert static.inputs[0].shape == (2, 1, 8, 8)
    batch = from_torch(nn.Conv2d(1, 1, 3), x, dynamic_shapes=({0: torch.export.Dim("n")},))
    assert batch.inputs[0].shape == (None, 1, 8, 8)


@pytest.mark.parametrize("strict", [True, False])
def test_program_and_file_give_the_same_graph(strict: bool, tmp_path: Path) -> None:
    program = torch.export.export(randomize(Net()), (torch.rand(1, 1, 12, 14),), strict=strict)
    path = tmp_path / "net.pt2"
    torch.export.save(program, path)
    graphs = [from_torch(program, name="n"), from_torch(path, name="n"), from_torch(str(path))]
    first, second, third = ([(n.name, n.attributes) for n in g.nodes] for g in graphs)
    assert first == second == third
    assert [graph.name for graph in graphs] == ["n", "n", "Net"]
    assert [name for name, _ in first][:3] == ["head", "layers.0.conv", "layers.2.conv"]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_parameters_become_float32(dtype: Any, tmp_path: Path) -> None:
    program = torch.export.export(nn.Conv2d(2, 4, 1, bias=False), (torch.rand(1, 2, 4, 4),))
    torch.export.save(program, tmp_path / "a.pt2")
    stored = torch.rand(4, 2, 1, 1).to(dtype)
    archive = Archive(tmp_path / "a.pt2")
    meta = archive.weight("weight")["tensor_meta"]
    meta["dtype"] = {torch.float16: 6, torch.float64: 8}[dtype]
    archive.members["data/weights/weight_0"] = stored.numpy().tobytes()
    graph = to_graph(read_pt2(archive.data()))
    np.testing.assert_array_equal(graph.nodes[0].tensors["weight"], stored.float().numpy())


def test_strided_parameters_become_contiguous() -> None:
    module = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    assert not module.weight.is_contiguous()
    x = torch.rand(1, 3, 5, 5)
    assert_same(module, from_torch(module, x), x)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_all_unsupported_operations_are_listed_with_module_paths() -> None:
    class Wild(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(4, 4, 3), nn.SELU())
            self.up = nn.ConvTranspose2d(4, 4, 3, stride=(2, 1))
            self.border = nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular")

        def forward(self, x: Any) -> Any:
            y = self.up(self.stem(x))
            y = self.border(y) + F.dropout(y, training=True)
            return torch.lgamma(y / y), y.flatten(0, 1)

    with pytest.raises(UnsupportedModelError) as caught:
        from_torch(Wild(), torch.rand(1, 4, 16, 16), dynamic_shapes={})
    message = str(caught.value)
    assert len(caught.value.problems) == 7
    for line in (
        r"stem\.1: aten\.selu\.default: not supported; closest supported form: elu",
        r"up: aten\.conv_transpose2d\.input: stride=\[2, 1\]; closest supported form: one stride",
        r"border: aten\.pad\.default: mode='circular', value=None; closest supported form: zeros, "
        "'reflect'",
        r"top level: aten\.dropout\.default: dropout in training mode",
        r"top level: aten\.div\.Tensor: division by a tensor; closest supported form: division by "
        "constants",
        r"top level: aten\.flatten\.using_ints: sizes .* to .*; closest supported form: a batch",
        r"top level: aten\.lgamma\.default: not supported(\n|$)",
    ):
        assert re.search(line, message), line


def test_weights_computed_at_run_time_are_not_supported() -> None:
    module = Functional(
        lambda conv, x: F.conv2d(x, conv.weight * conv(x).mean((2, 3)).reshape(4, 1, 1, 1))
    )
    with pytest.raises(UnsupportedModelError) as caught:
        from_torch(module, torch.rand(1, 1, 8, 8))
    assert [problem.split(":")[1] for problem in caught.value.problems][
        -1
    ] == " aten.conv2d.default"


def test_batch_statistics_are_not_supported() -> None:
    norm = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2, track_running_stats=False))
    with pytest.raises(UnsupportedModelError, match="closest supported form: running statistics"):
        from_torch(norm, torch.rand(1, 1, 8, 8))


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
def test_decomposed_programs_are_told_how_to_export() -> None:
    program = torch.export.export(nn.Conv2d(1, 2, 3), (torch.rand(1, 1, 8, 8),))
    with pytest.raises(UnsupportedModelError, match=r"without run_decompositions\(\)"):
        from_torch(program.run_decompositions())


def test_inputs_must_be_float32_tensors() -> None:
    module = Functional(lambda conv, x: conv(x)).double()
    with pytest.raises(UnsupportedModelError, match="input 'x' is not float32"):
        from_torch(module, torch.rand(1, 1, 8, 8, dtype=torch.float64))


def test_misuse_is_told() -> None:
    with pytest.raises(UnsupportedError, match="example"):
        from_torch(nn.ReLU())
    with pytest.raises(UnsupportedError, match="got dict"):
        from_torch({})
    with pytest.raises(FileError, match=r"cannot read 'none\.pt2': No such file"):
        from_torch("none.pt2")


class Star(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, *xs: Any) -> Any:
        return self.conv(xs[0]) - self.conv(xs[-1])


class Listed(Star):
    def forward(self, xs: Any) -> Any:
        return self.conv(xs[0]) - self.conv(xs[1])


class Optional(Star):
    def forward(self, x: Any, scale: Any = None, gain: float = 1) -> Any:
        return self.conv(x) * gain if scale is None else self.conv(x) * scale


class Compiled(NamedTuple):
    """A module to compile, which only a test can do: importing the compiler warns."""

    module: Any


IMAGE, OTHER_IMAGE = torch.rand(2, 1, 3, 8, 9)


@pytest.mark.parametrize(
    ("module", "example", "inputs"),
    [
        (Star(), IMAGE, 1),
        (Star(), (IMAGE, OTHER_IMAGE), 2),
        (Star(), [IMAGE, OTHER_IMAGE], 2),
        (Listed(), ([IMAGE, OTHER_IMAGE],), 2),
        (Listed(), ([IMAGE.numpy(), OTHER_IMAGE],), 2),
        (Optional(), (IMAGE, None), 1),
        (Optional(), (IMAGE, None, 2.5), 1),
        (Compiled(nn.Conv2d(3, 4, 1)), IMAGE, 1),
        (nn.DataParallel(nn.Conv2d(3, 4, 1)), IMAGE, 1),
        (Compiled(nn.DataParallel(nn.Conv2d(3, 4, 1))), [IMAGE], 1),
        (nn.Sequential(nn.Linear(3, 4), nn.ReLU()), torch.rand(2, 3), 1),
        (nn.Sequential(nn.Linear(3, 4), nn.Flatten()), torch.rand(2, 3), 1),
    ],
)
@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")
def test_arguments_are_what_the_module_takes(module: Any, example: Any, inputs: int) -> None:
    plain = module.module if isinstance(module, (Compiled, nn.DataParallel)) else module
    plain = plain.module if isinstance(plain, nn.DataParallel) else plain
    module = torch.compile(module.module) if isinstance(module, Compiled) else module
    graph = from_torch(module, example)
    assert len(graph.inputs) == inputs
    assert all(value.shape[2:] in ((None, None), (1, 1)) for value in graph.inputs)
    arrays = [
        np.asarray(leaf).reshape(np.shape(leaf) + (1, 1) * (np.ndim(leaf) == 2))
        for leaf in torch.utils._pytree.tree_leaves(example)
        if isinstance(leaf, (np.ndarray, torch.Tensor))
    ]
    given = example if isinstance(example, (tuple, list)) else (example,)
    given = torch.utils._pytree.tree_map(
        lambda leaf: torch.as_tensor(leaf) if isinstance(leaf, np.ndarray) else leaf, tuple(given)
    )
    with torch.no_grad():
        expected = plain(*given).numpy()
    (y,) = reference.run(graph, *arrays)
    np.testing.assert_allclose(y.reshape(expected.shape), expected, rtol=1e-4, atol=1e-5)


class Head(nn.Module):  # type: ignore[misc]
    def __init__(self, flatten: Any) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(1, 3, 3, padding=1), nn.Linear(3 * 4 * 5, 2)
        self.flatten = flatten

    def forward(self, x: Any) -> Any:
        return self.linear(self.flatten(F.max_pool2d(self.conv(x), 2)))


@pytest.mark.parametrize(
    "flatten",
    [
        lambda x: x.view(x.size(0), -1),
        lambda x: torch.flatten(x, 1),
        lambda x: x.reshape(x.shape[0], -1),
        lambda x: x.view(-1, 3 * 4 * 5),
    ],
)
def test_sizes_are_fixed_where_the_network_needs_it(flatten: Any) -> None:
    module = randomize(Head(flatten))
    x = torch.rand(1, 1, 8, 10)
    with pytest.warns(qppengine.FixedSizesWarning, match=r"x \[1, 1, 8, 10\]: with dynamic height"):
        graph = from_torch(module, x)
    assert graph.inputs[0].shape == (1, 1, 8, 10)
    (y,) = reference.run(graph, x.numpy())
    with torch.no_grad():
        np.testing.assert_allclose(y[..., 0, 0], module(x).numpy(), rtol=1e-4, atol=1e-5)


def test_what_fixed_sizes_do_not_mend_is_told_without_a_warning() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Flatten(), nn.SELU())
    with pytest.raises(UnsupportedModelError) as caught:
        from_torch(module, torch.rand(1, 1, 4, 4))
    (problem,) = caught.value.problems
    assert "selu" in problem


def broken(x: Any) -> Any:
    raise KeyError("mine")


@pytest.mark.parametrize(
    ("module", "example", "problem"),
    [
        (nn.Conv2d(3, 4, 1), torch.rand(1, 2, 8, 8), "torch.export cannot export Conv2d"),
        (nn.Conv2d(3, 4, 1), (IMAGE, IMAGE), "torch.export cannot export Conv2d"),
        (nn.Conv2d(3, 4, 1), "image", "torch.export cannot export Conv2d"),
        (Head(broken), torch.rand(1, 1, 8, 8), "KeyError: 'mine'"),
        (nn.Conv2d(3, 4, 1), np.array([None]), "the example cannot become tensors"),
        (Head(lambda x: x[x > 0]), torch.rand(1, 1, 8, 8), "torch.export cannot"),
    ],
)
def test_what_torch_refuses_is_told(module: Any, example: Any, problem: str) -> None:
    with pytest.raises(UnsupportedError, match=re.escape(problem)):
        from_torch(module, example)


def test_a_file_of_torch_save_is_told_how_to_export(tmp_path: Path) -> None:
    torch.save(nn.Conv2d(1, 1, 1), tmp_path / "module.pt")
    with pytest.raises(ModelError, match=r"torch\.export\.save"):
        from_torch(tmp_path / "module.pt")


def test_a_value_returned_twice_is_two_outputs() -> None:
    class Twice(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x: Any) -> Any:
            y = self.conv(x)
            return y, F.dropout(y, training=False), x, y.relu(), y, x

    graph = from_torch(Twice(), IMAGE)
    assert len(set(graph.outputs)) == 6
    module = randomize(Twice())
    assert_same(module, from_torch(module, IMAGE), IMAGE)


def test_two_importers_of_one_operator_are_refused() -> None:
    with pytest.raises(ValueError, match=r"two importers for aten\.relu\.default"):
        importer("aten.relu.default")(lambda operation, graph: "")


def test_a_file_is_read_without_torch() -> None:
    code = (
        "import sys; import qppengine as qe; "
        f"assert qe.from_torch({str(ESPCN)!r}).name == 'ESPCN'; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class Archive:
    """A .pt2 file to tamper with."""

    def __init__(self, path: Path) -> None:
        with zipfile.ZipFile(path) as archive:
            self.members = {
                name.partition("/")[2]: archive.read(name) for name in archive.namelist()
            }
        self.model = json.loads(self.members["models/model.json"])
        self.weights = json.loads(self.members["data/weights/model_weights_config.json"])

    def weight(self, name: str) -> Any:
        return self.weights["config"][name]

    def data(self, compression: int = zipfile.ZIP_STORED) -> bytes:
        self.members["models/model.json"] = json.dumps(self.model).encode()
        self.members["data/weights/model_weights_config.json"] = json.dumps(self.weights).encode()
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", compression) as archive:
            for name, content in self.members.items():
                archive.writestr(f"archive/{name}", content)
        return buffer.getvalue()


def set_meta(key: str, value: Any) -> Any:
    return lambda a: a.weight("conv1.weight")["tensor_meta"].update({key: value})


@pytest.mark.parametrize(
    ("tamper", "problem"),
    [
        (lambda a: a.model["schema_version"].update(major=9), "schema version 8.x, got 9.x"),
        (lambda a: a.model.pop("graph_module"), "expected 'graph_module' of type dict"),
        (lambda a: a.weight("conv1.weight").update(use_pickle=True), "pickles are never loaded"),
        (lambda a: a.weights["config"].pop("conv2.bias"), "tensor 'conv2.bias' is missing"),
        (lambda a: a.members.pop("data/weights/weight_1"), "has no data/weights/weight_1"),
        (
            lambda a: a.members.update({"data/weights/weight_0": b"\0" * 100}),
            "expected data for sizes .* got 25 elements",
        ),
        (set_meta("sizes", [{"as_int": 2**40}] * 4), "do not belong together|expected data"),
        (set_meta("sizes", [{"as_int": -1}] * 4), "expected a size"),
        (set_meta("strides", [{"as_int": 0}] * 3), "do not belong together"),
        (set_meta("strides", [{"as_int": 10**9}] * 4), "expected data for sizes"),
        (set_meta("storage_offset", {"as_int": 1}), "offset 1, got 1600 elements"),
        (lambda a: a.members.update(byteorder=b"big"), "big-endian"),
        (lambda a: a.model["graph_module"]["graph"]["nodes"].pop(), "output .* is not computed"),
        (lambda a: a.model["graph_module"]["graph"]["nodes"].append(3), "expected an object"),
    ],
)
def test_altered_archives_are_refused(tamper: Any, problem: str) -> None:
    archive = Archive(ESPCN)
    tamper(archive)
    with pytest.raises(ModelError, match=problem):
        to_graph(read_pt2(archive.data()))


def test_other_archives_are_refused() -> None:
    with pytest.raises(ModelError, match="members are compressed"):
        read_pt2(Archive(ESPCN).data(zipfile.ZIP_DEFLATED))
    archive = Archive(ESPCN)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as other:
        other.writestr("archive/models/other.json", archive.members["models/model.json"])
    with pytest.raises(ModelError, match=r"has no models/model\.json"):
        read_pt2(buffer.getvalue())
    for data in (b"", b"PK\5\6", b"not a zip" * 100):
        with pytest.raises(ModelError, match=r"not a readable \.pt2 archive"):
            read_pt2(data)


def test_members_that_are_listed_many_times_are_refused() -> None:
    data = ESPCN.read_bytes()
    end = data.rindex(b"PK\5\6")
    count, size, begin = struct.unpack_from("<HII", data, end + 10)
    directory = data[begin : begin + size]
    first = directory[: 46 + sum(struct.unpack_from("<HHH", directory, 28))]
    for again in (first, first.replace(b".json", b".jsoN").replace(b"weight_0", b"weight_9")):
        extended = directory + 40 * again
        tail = struct.pack(
            "<4sHHHHIIH", b"PK\5\6", 0, 0, count + 40, count + 40, len(extended), begin, 0
        )
        with pytest.raises(ModelError, match=r"listed twice|overlap"):
            read_pt2(data[:begin] + extended + tail)


def test_the_text_of_an_archive_has_a_limit() -> None:
    with pytest.raises(ModelError, match=r"exceeds the limit header_bytes = 100"):
        from_torch(ESPCN, limits=qppengine.Limits(header_bytes=100))


def test_truncated_archives_are_refused() -> None:
    data = ESPCN.read_bytes()
    for size in range(0, len(data), 997):
        with pytest.raises(ModelError):
            read_pt2(data[:size])


@pytest.mark.parametrize("seed", range(4))
def test_no_flipped_bit_raises_anything_but_our_errors(seed: int) -> None:
    data = Archive(ESPCN).data()
    rng = np.random.default_rng(seed)
    intact = to_graph(read_pt2(data))
    for position in rng.integers(len(data), size=150):
        flipped = bytearray(data)
        flipped[position] ^= 1 << rng.integers(8)
        try:
            graph = to_graph(read_pt2(bytes(flipped)))
        except Error:
            continue
        # Only bytes without a meaning can change unnoticed: every member has a checksum.
        assert [node.name for node in graph.nodes] == [node.name for node in intact.nodes]


@pytest.mark.parametrize("seed", range(4))
def test_no_altered_program_raises_anything_but_our_errors(seed: int) -> None:
    """Replaces random parts of the JSON, which no checksum detects."""
    rng = np.random.default_rng(seed)
    junk: list[Any] = [
        None,
        True,
        -1,
        2**70,
        1.5,
        "",
        "x",
        [],
        [[]],
        {},
        {"as_int": 3},
        {"as_tensor": {}},
    ]
    text = json.dumps(Archive(ESPCN).model["graph_module"])
    for _ in range(150):
        archive = Archive(ESPCN)
        archive.model["graph_module"] = json.loads(text)
        replace_value(archive.model["graph_module"], junk, rng)
        with contextlib.suppress(Error):
            to_graph(read_pt2(archive.data()))
