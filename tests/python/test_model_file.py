# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import qppengine as qe
from mutations import replace_value
from qppengine import (
    CalibrationError,
    Error,
    FileError,
    Graph,
    GraphBuilder,
    ModelError,
    ShapeError,
    reference,
)
from qppengine.model_file import load_graph, serialize
from qppengine.passes import optimize
from qppengine.save import save
from qppengine.session import SCHEMES, Session, read_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from qppengine.ir import Array

pytest.importorskip("safetensors")
pytest.importorskip("sklearn")


def one_conv(weight: Any, name: str = "c") -> Graph:
    net = GraphBuilder("one")
    net.output(net.conv2d(net.input("x", (1, 1, None, None)), weight, padding=1, name=name))
    return net.build()


def test_file_holds_the_optimized_graph(graph: Graph, model: Path) -> None:
    loaded, expected = load_graph(model), optimize(graph)
    assert (loaded.name, loaded.inputs, loaded.outputs) == (
        expected.name,
        expected.inputs,
        expected.outputs,
    )
    for node, original in zip(loaded.nodes, expected.nodes, strict=True):
        assert (node.op, node.name, node.inputs, node.output) == (
            original.op,
            original.name,
            original.inputs,
            original.output,
        )
        got, given = (json.dumps(one.attributes, sort_keys=True) for one in (node, original))
        assert got == given
        for key, tensor in original.tensors.items():
            kept = tensor.astype(np.float16) if key == "weight" else tensor
            np.testing.assert_array_equal(node.tensors[key], kept)


def test_file_is_safetensors_with_the_quantization(
    model: Path, calibration: qe.Calibration
) -> None:
    from safetensors import safe_open

    with safe_open(model, "numpy") as file:
        metadata = file.metadata()
        assert file.get_tensor("head.weight").dtype == np.float16
        assert file.get_tensor("head.bias").dtype == np.float32
        # Three values, four sets of bounds: without density, then of every density.
        sets = qe.fit(calibration).sets
        for index, one in enumerate((calibration, *calibration.by_density)):
            rows = slice(3 * index, 3 * index + 3)
            calibrated_range = file.get_tensor("qparams/calibrated_range")[rows]
            np.testing.assert_array_equal(calibrated_range, sets[index].calibrated_range)
            np.testing.assert_array_equal(
                file.get_tensor("qparams/fitted")[rows], sets[index].fitted
            )
            np.testing.assert_array_equal(file.get_tensor("qparams/mean")[rows], one.mean_bounds)
            np.testing.assert_array_equal(file.get_tensor("qparams/range")[rows], one.range_bounds)
        assert file.get_tensor("qparams/calibrated_range").shape == (12, 4)
        assert file.get_tensor("predictors/0/weight").shape == (24, 5)
    assert (metadata["format"], metadata["format_version"]) == ("qppengine", "2")
    assert json.loads(metadata["graph"])["quantization"]["values"] == ["x", "head", "body"]


def test_saving_what_was_loaded_changes_nothing(model: Path, calibration: qe.Calibration) -> None:
    text, tensors = read_model(serialize(load_graph(model), qe.fit(calibration)))
    first_text, first_tensors = read_model(model)
    assert json.loads(text) == json.loads(first_text)
    assert tensors.keys() == first_tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor, first_tensors[name])


def in_fortran_order(graph: Graph) -> Graph:
    """The same weights, with another layout in memory."""
    nodes = (
        replace(n, tensors={k: np.asfortranarray(t) for k, t in n.tensors.items()})
        for n in graph.nodes
    )
    return replace(graph, nodes=tuple(nodes))


def test_layout_of_arrays_in_memory_does_not_matter(
    graph: Graph,
    calibration: qe.Calibration,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SciPy gives coefficients in Fortran order, since 1.18 for small problems, too."""
    import sklearn.linear_model

    regress = sklearn.linear_model.LinearRegression.fit

    def fit_in_fortran_order(*args: Any) -> Any:
        model = regress(*args)
        model.coef_ = np.asfortranarray(model.coef_)
        return model

    monkeypatch.setattr(sklearn.linear_model.LinearRegression, "fit", fit_in_fortran_order)
    shuffled = replace(
        calibration,
        bounds=np.asfortranarray(calibration.bounds),
        features=np.asfortranarray(calibration.features),
        sparse_bounds=tuple(map(np.asfortranarray, calibration.sparse_bounds)),
    )
    assert not shuffled.bounds.flags.c_contiguous
    weight = in_fortran_order(optimize(graph)).nodes[0].tensors["weight"]
    assert not weight.flags.c_contiguous
    save(tmp_path / "a.qpp", in_fortran_order(graph), shuffled)
    _, expected = read_model(model)
    _, stored = read_model(tmp_path / "a.qpp")
    assert stored.keys() == expected.keys()
    for name, tensor in stored.items():
        np.testing.assert_array_equal(tensor, expected[name], err_msg=name)
    shuffled.save(tmp_path / "a.npz")
    loaded = qe.Calibration.load(tmp_path / "a.npz")
    np.testing.assert_array_equal(loaded.bounds, calibration.bounds)
    np.testing.assert_array_equal(loaded.features, calibration.features)
    np.testing.assert_array_equal(loaded.sparse_bounds, calibration.sparse_bounds)


def test_file_that_reads_back_differently_is_not_written(
    graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a library that writes the memory of a transposed matrix as it is."""
    import safetensors.numpy

    write: Callable[..., bytes] = safetensors.numpy.save

    def transposed(tensors: dict[str, Array], metadata: dict[str, str]) -> bytes:
        weight = tensors["body.weight"]
        return write(tensors | {"body.weight": weight.T.reshape(weight.shape)}, metadata)

    monkeypatch.setattr(safetensors.numpy, "save", transposed)
    with pytest.raises(ModelError, match=r"others of body\.weight; the file was not written"):
        save(tmp_path / "a.qpp", graph)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", ["weight", "bias"])
def test_file_that_predicts_otherwise_is_not_written(
    graph: Graph,
    calibration: qe.Calibration,
    key: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import safetensors.numpy

    write: Callable[..., bytes] = safetensors.numpy.save

    def reordered(tensors: dict[str, Array], metadata: dict[str, str]) -> bytes:
        name = f"predictors/0/{key}"
        changed = tensors[name].reshape(4, -1).copy()
        changed[0] = changed[0, ::-1]
        return write(tensors | {name: changed.reshape(tensors[name].shape)}, metadata)

    monkeypatch.setattr(safetensors.numpy, "save", reordered)
    with pytest.raises(ModelError, match="expected the engine to predict the bounds"):
        save(tmp_path / "a.qpp", graph, calibration)
    assert list(tmp_path.iterdir()) == []


def test_file_without_densities_has_one_set_of_bounds(
    graph: Graph, samples: list[Array], model: Path
) -> None:
    """As files have been before there were densities."""
    data = serialize(graph, qe.fit(qe.calibrate(graph, samples, densities=(), progress=False)))
    data = edit(data, lambda d: d["quantization"].pop("densities"))
    for scheme in SCHEMES:
        Session(data, scheme).run(samples[0])
    with pytest.raises(qe.UnsupportedError, match=r"calibrated for \(none\), got 0\.01"):
        Session(data, "qpp", density=0.01)


def test_uncalibrated_file_runs_in_fp16_only(graph: Graph, tmp_path: Path) -> None:
    path = tmp_path / "a.qpp"
    save(path, graph)
    Session(path, "fp16")
    for scheme in SCHEMES[1:]:
        with pytest.raises(qe.UnsupportedError, match="needs a calibrated model"):
            Session(path, scheme)


def test_names_of_modules_cannot_clash_with_those_of_the_format() -> None:
    weight = np.ones((1, 1, 3, 3), np.float32)
    for name in ("qparams", "predictors.0", "qparams/mean"):
        graph = one_conv(weight, name)
        images = [np.full((1, 1, 4, 4), i, np.float32) for i in range(8)]
        data = serialize(graph, qe.fit(qe.calibrate(graph, images, progress=False)))
        np.testing.assert_array_equal(load_graph(data).nodes[0].tensors["weight"], weight)


@pytest.mark.parametrize("gain", [1e-30, 3e-8, 1e-5, 1e-3, 1.0, 2e4, 7e4, 1e30])
def test_weights_of_any_size_keep_their_digits(gain: float) -> None:
    """Filters are stored in units of their own, which load_graph() undoes."""
    weight = np.random.default_rng(1).normal(size=(3, 2, 3, 3)).astype(np.float32)
    weight[1] *= np.float32(gain)
    weight[2] = 0
    net = qe.GraphBuilder("gain")
    net.output(net.conv2d(net.input("x", (1, 2, None, None)), weight, name="c"))
    loaded = load_graph(serialize(net.build())).nodes[0].tensors["weight"]
    for kept, given in zip(loaded, weight, strict=True):
        assert np.abs(kept - given).max() <= np.abs(given).max() * 2**-11


def test_slopes_beyond_fp16_are_refused() -> None:
    net = qe.GraphBuilder("slopes")
    net.output(net.prelu(net.input("x", (1, 1, 4, 4)), np.full(1, 7e4), name="big"))
    with pytest.raises(qe.UnsupportedError, match=r"big: weights are stored in fp16.*got 70000"):
        serialize(net.build())


def test_calibration_of_another_network_is_refused(calibration: qe.Calibration) -> None:
    with pytest.raises(CalibrationError, match=r"expected the values \['x'\], got \['x', 'head'"):
        serialize(one_conv(np.ones((1, 1, 3, 3))), qe.fit(calibration))


def test_calibration_too_small_to_fit_is_refused(graph: Graph, samples: list[Array]) -> None:
    calibration = qe.calibrate(graph, samples[:3], progress=False)
    with pytest.raises(CalibrationError, match="expected at least 6 samples"):
        serialize(graph, qe.fit(calibration, 0))


def test_network_without_convolutions_is_saved(tmp_path: Path) -> None:
    net = GraphBuilder("shuffle")
    net.output(net.pixel_shuffle(net.tanh(net.input("x", (1, 4, None, 3))), 2))
    save(tmp_path / "a.qpp", net.build())
    x = np.linspace(-1, 2, 24, dtype=np.float32).reshape(1, 4, 2, 3)
    y = Session(tmp_path / "a.qpp", "fp16").run(x)
    np.testing.assert_allclose(y, reference.run(net.build(), x)[0], atol=1e-3)


def test_network_that_shrinks_images_is_probed_with_larger_ones(tmp_path: Path) -> None:
    net = GraphBuilder("large")
    net.output(net.conv2d(net.input("x", (1, 1, None, None)), np.ones((1, 1, 40, 40))))
    save(tmp_path / "a.qpp", net.build())
    assert load_graph(tmp_path / "a.qpp").name == "large"
    other = GraphBuilder("larger")
    other.output(other.conv2d(other.input("x", (1, 1, None, None)), np.ones((1, 1, 1, 2000))))
    with pytest.raises(qe.UnsupportedError, match="takes no image of 1024 pixels"):
        save(tmp_path / "b.qpp", other.build())


def test_network_that_overflows_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(qe.NonFiniteError, match="scheme 'fp16': value 'c': got an overflow"):
        save(tmp_path / "a.qpp", one_conv(np.full((1, 1, 3, 3), 6e4)))
    assert list(tmp_path.iterdir()) == []


def test_unwritable_path_is_told(graph: Graph, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"cannot write '.*/none/a\.qpp': No such file"):
        save(tmp_path / "none" / "a.qpp", graph)
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileError, match="Is a directory"):
        save(tmp_path / "folder", graph)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_failed_write_leaves_the_old_file(
    graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.qpp"
    path.write_text("old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match="No space left on device"):
        save(path, graph)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_save_replaces_a_file(graph: Graph, tmp_path: Path) -> None:
    path = tmp_path / "a.qpp"
    path.write_text("old")
    save(path, graph)
    assert load_graph(path).name == "small"
    assert list(tmp_path.iterdir()) == [path]


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    for open_file in (load_graph, Session, read_model):
        with pytest.raises(FileError, match=r"cannot read '.*none\.qpp': No such file"):
            open_file(tmp_path / "none.qpp")
        with pytest.raises(FileError, match="Is a directory"):
            open_file(tmp_path)
        for content in (b"", b"junk", b"\0" * 8, b"\xff" * 100, b"\2\0\0\0\0\0\0\0{}"):
            (tmp_path / "a.qpp").write_bytes(content)
            with pytest.raises(ModelError, match=r"a\.qpp"):
                open_file(tmp_path / "a.qpp")


def test_what_is_not_a_regular_file_is_not_opened(graph: Graph, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # opening one waits for its other end
    for open_file in (load_graph, Session, read_model):
        for path in (str(tmp_path / "pipe"), "/dev/zero", "/dev/null"):
            with pytest.raises(FileError, match=f"{path}': expected a regular file"):
                open_file(path)
    name = os.fsdecode(b"\xff.qpp")  # not UTF-8
    with pytest.raises(FileError, match=r"xff\.qpp"):
        load_graph(tmp_path / name)
    (tmp_path / "a.qpp").symlink_to(name)
    save(tmp_path / "b.qpp", graph)
    (tmp_path / "b.qpp").rename(tmp_path / name)
    assert load_graph(tmp_path / name).name == load_graph(tmp_path / "a.qpp").name == "small"


def test_truncated_files_are_refused(model: Path) -> None:
    data = model.read_bytes()
    for size in range(0, len(data), 101):
        with pytest.raises(ModelError):
            Session(data[:size])
    with pytest.raises(ModelError):
        Session(data + b"\0")


def edit(data: bytes, change: Any) -> bytes:
    """`data` with its graph changed; the header keeps its form, so that only the graph is wrong."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    document = json.loads(header["__metadata__"]["graph"])
    change(document)
    header["__metadata__"]["graph"] = json.dumps(document)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def last_becomes(op: str, **attributes: Any) -> Callable[[Any], None]:
    """Makes the last node of a document another operation."""
    return lambda document: document["nodes"][-1].update(op=op, attributes=attributes)


def feature_becomes(**fields: Any) -> Callable[[Any], None]:
    """Replaces the first feature of a document."""

    def change(document: Any) -> None:
        document["quantization"]["predictors"][0]["features"][0] = fields

    return change


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda d: d["nodes"][0].update(op="unknown"), "head"),
        (lambda d: d["nodes"][0].update(inputs=["y"]), "'y'"),
        (lambda d: d["nodes"][0]["tensors"].update(weight="tail.bias"), "head"),
        (lambda d: d["nodes"][0]["tensors"].update(weight="none"), "none"),
        (lambda d: d["nodes"][0]["attributes"].update(stride=[0, 1]), "stride"),
        (lambda d: d["nodes"][0]["attributes"].update(groups=5), "groups"),
        (lambda d: d["quantization"].update(values=["x"]), "."),
        (lambda d: d["quantization"].update(alpha=2), "alpha"),
        (lambda d: d["quantization"].pop("densities"), "wrong shape for 3 rows"),
        (lambda d: d["quantization"].update(densities=[0.01, 0.1]), "wrong shape for 9 rows"),
        (lambda d: d["quantization"].update(densities=[0.03, 0.01, 0.1]), "above 0.03"),
        (lambda d: d["quantization"].update(densities=[0.01, 0.03, 0.5]), "up to 0.1"),
        (lambda d: d["quantization"].update(densities=[i / 400 for i in range(1, 34)]), "up to 32"),
        (lambda d: d["quantization"]["predictors"][0].update(rows=[0, 1]), "."),
        (feature_becomes(kind="median"), "kind"),
        (feature_becomes(kind="mean", alpha=0.9), "alpha"),
        (feature_becomes(kind="quantile"), "alpha"),
        (feature_becomes(kind="quantile", alpha=0.2), "alpha"),
        (feature_becomes(kind="max", value="none"), "none"),
        (feature_becomes(kind="max", value="body"), "body"),
        (feature_becomes(kind="max", transform="exp"), "transform"),
        (lambda d: d["quantization"]["predictors"][0].update(features=[]), "features"),
        (lambda d: d["quantization"]["predictors"][0]["features"].pop(), "weight"),
        (lambda d: d["quantization"]["predictors"][0].update(target_transform="x"), "target_tra"),
        (lambda d: d.update(outputs=["nothing"]), "nothing"),
        (lambda d: d.pop("inputs"), "inputs"),
        (lambda d: d["nodes"][0]["attributes"].update(padding=[1, 2, 3]), "padding"),
        (last_becomes("rearrange", view=[2**40], order=[0]), "view"),
        (last_becomes("rearrange", view=[8, None], order=[0, 1]), "view"),
        (last_becomes("rearrange", view=[8, None, 3], order=[0, 1, 2]), "view"),
        (last_becomes("rearrange", view=[8, None, None], order=[0, 1]), "order"),
        (last_becomes("rearrange", view=[8, None, None], order=[0, 1, 1]), "occurs twice"),
        (last_becomes("rearrange", view=[], order=[]), "1 to 6 dimensions"),
        (last_becomes("slice", axis=0, start=0, stop=None, step=1), "axis"),
        (last_becomes("slice", axis=1, start=0, stop=None, step=0), "step"),
        (last_becomes("slice", axis=1, start=2**50, stop=None, step=1), "start"),
        (last_becomes("pad", padding=[1, 1], mode="zeros"), "padding"),
        (last_becomes("pad", padding=[1, 1, -1, 0], mode="reflect"), "padding"),
        (last_becomes("pad", padding=[1, 1, 1, 1], mode="circular"), "mode"),
        (last_becomes("adaptive_avg_pool2d", size=[0, 1]), "size"),
        (last_becomes("softmax", dim=1), "dim"),
        (last_becomes("pixel_unshuffle", downscale_factor=0), "downscale_factor"),
    ],
)
def test_altered_graphs_are_refused_by_name(change: Any, problem: str, model: Path) -> None:
    with pytest.raises((ModelError, qe.UnsupportedError), match=re.escape(problem)):
        Session(edit(model.read_bytes(), change))


@pytest.mark.parametrize(
    "change",
    [
        last_becomes("rearrange", view=[2, 3, None, None], order=[1, 0, 2, 3]),
        last_becomes("rearrange", view=[2**24] * 6, order=[0, 1, 2, 3, 4, 5]),
        last_becomes("rearrange", view=[97, 83, 1], order=[0, 1, 2]),
        last_becomes("slice", axis=2, start=5, stop=5, step=1),
        last_becomes("slice", axis=1, start=8, stop=None, step=1),
        last_becomes("pad", padding=[0, -30, 0, -30], mode="zeros"),
        last_becomes("pad", padding=[0, 0, 90, 0], mode="reflect"),
        last_becomes("pixel_unshuffle", downscale_factor=7),
    ],
)
def test_operations_that_do_not_fit_are_refused_by_name(change: Any, model: Path) -> None:
    session = Session(edit(model.read_bytes(), change), "fp16")
    with pytest.raises(ShapeError, match="node 'shuffle'"):
        session.run(np.zeros((1, 3, 20, 24), np.float32))


def test_other_format_versions_are_refused(model: Path) -> None:
    data = model.read_bytes().replace(b'"format_version":"2"', b'"format_version":"9"')
    with pytest.raises(qe.UnsupportedError, match="expected format version 1 to 2, got '9'"):
        Session(data)


@pytest.mark.parametrize("seed", range(4))
def test_no_flipped_bit_raises_anything_but_our_errors(seed: int, model: Path) -> None:
    data = model.read_bytes()
    header = int.from_bytes(data[:8], "little") + 8
    x = np.ones((1, 3, 6, 6), np.float32)
    rng = np.random.default_rng(seed)
    for position in rng.integers(header, size=250):
        flipped = bytearray(data)
        flipped[position] ^= 1 << rng.integers(8)
        try:
            Session(bytes(flipped)).run(x)
            load_graph(bytes(flipped))
        except Error:
            continue


@pytest.mark.parametrize("seed", range(4))
def test_no_altered_graph_raises_anything_but_our_errors(seed: int, model: Path) -> None:
    rng = np.random.default_rng(seed)
    junk: list[Any] = [None, True, -1, 2**70, 1.5, "", "x", [], [[]], {}, {"a": 3}, 1e30]
    data = model.read_bytes()

    x = np.ones((1, 3, 6, 6), np.float32)
    for _ in range(150):
        altered = edit(data, lambda document: replace_value(document, junk, rng))
        try:
            Session(altered).run(x)
            load_graph(altered)
        except Error:
            continue


def test_graph_is_checked_in_python_too(model: Path) -> None:
    data = edit(model.read_bytes(), lambda d: d.pop("name"))
    with pytest.raises(ModelError, match="malformed: KeyError"):
        load_graph(data)


def test_serializing_does_not_change_the_graph(graph: Graph) -> None:
    before = [replace(node) for node in graph.nodes]
    serialize(graph)
    assert [node.name for node in graph.nodes] == [node.name for node in before]


_PRINT_HASH = """
import hashlib
import sys

import qppengine as qe
from qppengine.model_file import load_graph, serialize

graph, calibration = load_graph(sys.argv[1]), qe.Calibration.load(sys.argv[2])
print(hashlib.sha256(serialize(graph, qe.fit(calibration))).hexdigest())
"""


def test_equal_graphs_give_equal_bytes(
    graph: Graph, calibration: qe.Calibration, tmp_path: Path
) -> None:
    """In every process, whatever the order of its hashes."""
    (tmp_path / "a.qpp").write_bytes(serialize(graph))
    calibration.save(tmp_path / "a.npz")
    arguments = (str(tmp_path / "a.qpp"), str(tmp_path / "a.npz"))
    hashes = {
        subprocess.check_output(
            [sys.executable, "-c", _PRINT_HASH, *arguments],
            env={**os.environ, "PYTHONHASHSEED": seed},
            text=True,
        )
        for seed in ("0", "1", "2")
    }
    assert len(hashes) == 1
    reversed_nodes = tuple(
        replace(
            node,
            attributes=dict(reversed(list(node.attributes.items()))),
            tensors=dict(reversed(list(node.tensors.items()))),
        )
        for node in graph.nodes
    )
    same = replace(graph, nodes=reversed_nodes)
    assert serialize(same, qe.fit(calibration)) == serialize(graph, qe.fit(calibration))


def test_tensors_of_a_file_are_aligned(graph: Graph) -> None:
    data = serialize(graph)
    assert int.from_bytes(data[:8], "little") % 8 == 0


def test_a_model_is_read_from_any_bytes(graph: Graph) -> None:
    data = serialize(graph)
    for model in (bytearray(data), memoryview(data)):
        assert load_graph(model).outputs == graph.outputs


@pytest.mark.parametrize("convolutions", [0, 2])
def test_a_network_without_quantized_values_runs_alike_in_every_scheme(
    convolutions: int, tmp_path: Path
) -> None:
    net = GraphBuilder("n")
    y = net.input("x", (1, 3, 8, 8))
    for _ in range(convolutions):
        y = net.conv2d(y, np.full((3, 3, 3, 3), 1 / 27), padding=1, activation="relu")
    net.output(net.max_pool2d(y, 2))
    graph = qe.keep_fp16(net.build(), skip_first=True, skip_last=True)
    rng = np.random.default_rng(0)
    samples = [rng.random((1, 3, 8, 8), np.float32) for _ in range(8)]
    for densities in ((), (0.01,)):
        calibration = qe.calibrate(graph, samples, densities=densities, progress=False)
        calibration.save(tmp_path / "n.npz")
        save(tmp_path / "n.qpp", graph, qe.Calibration.load(tmp_path / "n.npz"))
        expected = Session(tmp_path / "n.qpp", scheme="fp16").run(samples[0])
        for scheme in ("static", "dynamic", "qpp"):
            for density in (None, *densities):
                session = Session(tmp_path / "n.qpp", scheme=scheme, density=density)
                np.testing.assert_array_equal(session.run(samples[0]), expected)


def test_deprecated_serialize_fits_a_calibration(graph: Graph, calibration: qe.Calibration) -> None:
    from qppengine import serialize as deprecated

    with pytest.deprecated_call():
        data = deprecated.serialize(graph, calibration)
    assert data == serialize(graph, qe.fit(calibration))
