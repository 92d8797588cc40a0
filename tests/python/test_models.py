# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import qppengine.models

torch = pytest.importorskip("torch")

FOLDER = Path(qppengine.models.__file__).parent
UPSCALES = [2, 3]


def weights_file(upscale: int) -> Path:
    return FOLDER / f"espcn_x{upscale}.pt2"


@pytest.mark.parametrize("upscale", UPSCALES)
def test_espcn_enlarges_any_size(upscale: int) -> None:
    from qppengine.models.espcn import ESPCN

    model = ESPCN(upscale)
    for height, width in [(1, 1), (5, 8), (17, 4)]:
        output = model(torch.zeros(2, 1, height, width))
        assert output.shape == (2, 1, height * upscale, width * upscale)


@pytest.mark.parametrize("upscale", UPSCALES)
def test_exported_weights_are_small_and_hold_no_path_or_pickle(upscale: int) -> None:
    path = weights_file(upscale)
    assert path.stat().st_size < 200_000
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    paths = re.compile(rb"stack_trace|site-packages|\.py\b|/(home|root|tmp|usr|work)/")
    for name, content in members.items():
        if name.endswith(".json"):
            assert not paths.search(content), name
        assert not (name.endswith(".pt") and content), name


@pytest.mark.parametrize("upscale", UPSCALES)
def test_exported_program_is_espcn(upscale: int) -> None:
    from qppengine.models.espcn import ESPCN

    program = torch.export.load(weights_file(upscale))
    model = ESPCN(upscale).eval()
    model.load_state_dict(program.state_dict)
    low = torch.rand(1, 1, 21, 34, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(low), model(low))


@pytest.mark.parametrize("upscale", UPSCALES)
def test_exported_operators_are_not_decomposed(upscale: int) -> None:
    program = torch.export.load(weights_file(upscale))
    targets = [str(n.target) for n in program.graph.nodes if n.op == "call_function"]
    convolution, tanh = "aten.conv2d.default", "aten.tanh.default"
    assert targets == [
        *(convolution, tanh),
        *(convolution, tanh),
        *(convolution, "aten.pixel_shuffle.default"),
    ]


@pytest.mark.parametrize("upscale", UPSCALES)
def test_trained_espcn_beats_bicubic_on_every_held_out_photograph(upscale: int) -> None:
    pytest.importorskip("PIL")
    from qppengine import photos
    from qppengine.models.train_espcn import psnr

    model = torch.export.load(weights_file(upscale)).module()
    gains = []
    for pair in photos.pairs("test", upscale, seed=None):
        with torch.no_grad():
            output = model(torch.from_numpy(pair.low)[None, None])[0, 0].numpy()
        bicubic = photos.upscale_bicubic(pair.low, upscale)
        gains.append(psnr(output, pair.high) - psnr(bicubic, pair.high))
    assert min(gains) > 0.2
    assert np.mean(gains) > 0.6


def test_training_step_and_export_round_trip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("PIL")
    from qppengine.models import train_espcn

    monkeypatch.setattr(train_espcn, "BATCH", 2)
    first, second = (train_espcn.train(upscale=2, steps=2, seed=5) for _ in range(2))
    for name, weight in first.state_dict().items():
        torch.testing.assert_close(weight, second.state_dict()[name])
    path = tmp_path / "espcn.pt2"
    train_espcn.export(first.eval(), path)
    low = torch.rand(1, 1, 9, 13)
    with torch.no_grad():
        torch.testing.assert_close(torch.export.load(path).module()(low), first(low))


@pytest.mark.parametrize("upscale", UPSCALES)
def test_engine_matches_pytorch_on_photographs(upscale: int, tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    from qppengine import Session, from_torch, photos, save

    module = torch.export.load(weights_file(upscale)).module()
    save(tmp_path / "espcn.qpp", from_torch(weights_file(upscale)))
    session = Session(tmp_path / "espcn.qpp", "fp16")
    for name in photos.names("test"):
        low = photos.downscale(photos.load_luminance(name), upscale)[None, None]
        with torch.no_grad():
            expected = module(torch.from_numpy(low)).numpy()
        assert np.abs(session.run(low) - expected).max() < 5e-3
