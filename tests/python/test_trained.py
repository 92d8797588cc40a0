# SPDX-License-Identifier: Apache-2.0
"""A narrow ResNet18, trained here on handwritten digits, keeps its accuracy in the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
import qppengine as qe
from qppengine.metrics import sqnr
from qppengine.model_file import serialize

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

import torch.nn.functional as F  # noqa: E402, N812
from qppengine.models.resnet import resnet18  # noqa: E402
from sklearn.datasets import load_digits  # noqa: E402

if TYPE_CHECKING:
    from qppengine.ir import Array

TRAINING = 1400  # of the 1797 images; the others only test
EPOCHS, BATCH, RATE = 5, 50, 6e-3


class Trained(NamedTuple):
    graph: qe.Graph
    data: bytes
    images: Array  # of the test split, with their digits and PyTorch's scores
    digits: Any
    scores: Array


@pytest.fixture(scope="module")
def trained() -> Trained:
    torch.manual_seed(0)
    images, digits = load()
    order = torch.randperm(len(digits))
    training, test = order[:TRAINING], order[TRAINING:]
    module = train(images[training], digits[training])
    graph = qe.from_torch(module, images[:1].numpy(), name="digits")
    graph = qe.keep_fp16(graph, skip_first=True, skip_last=True)
    samples = (images[index : index + 1].numpy() for index in training[:64])
    data = serialize(graph, qe.fit(qe.calibrate(graph, samples, 1.0, progress=False)))
    with torch.no_grad():
        scores = module(images[test]).numpy()
    return Trained(graph, data, images[test].numpy(), digits[test].numpy(), scores)


def load() -> tuple[Any, Any]:
    """Images ``[N, 3, 32, 32]`` in [0, 1], enlarged from 8x8 pixels, and the digits they show."""
    data = load_digits()
    images = torch.from_numpy((data.images / 16).astype(np.float32))[:, None]
    images = F.interpolate(images, size=(32, 32), mode="bilinear")
    return images.expand(-1, 3, -1, -1).contiguous(), torch.from_numpy(data.target)


def train(images: Any, digits: Any) -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so that sums have one order
    module = resnet18(width=16, classes=10)
    optimizer = torch.optim.AdamW(module.parameters())
    steps = EPOCHS * (len(digits) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(digits)).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(module(images[batch]), digits[batch]).backward()
            optimizer.step()
            schedule.step()
    torch.set_num_threads(threads)
    return module.eval()


def run(trained: Trained, scheme: str) -> Array:
    session = qe.Session(trained.data, scheme)
    scores = [session.run(image[None]).ravel() for image in trained.images]
    return np.stack(scores)


def accuracy(trained: Trained, scores: Array) -> float:
    return float(np.mean(scores.argmax(axis=1) == trained.digits))


def test_float_has_learned(trained: Trained) -> None:
    assert accuracy(trained, trained.scores) >= 0.95


def test_fp16_is_within_one_percent_rms(trained: Trained) -> None:
    assert sqnr(run(trained, "fp16"), trained.scores) >= 40


def test_dynamic_int8_is_near(trained: Trained) -> None:
    assert sqnr(run(trained, "dynamic"), trained.scores) >= 25


@pytest.mark.parametrize("scheme", ["static", "dynamic", "qpp"])
def test_int8_is_as_accurate(trained: Trained, scheme: str) -> None:
    assert accuracy(trained, run(trained, scheme)) >= accuracy(trained, trained.scores) - 0.01


def test_all_convolutions_of_the_body_read_int8(trained: Trained) -> None:
    session = qe.Session(trained.data, "dynamic", algorithm="direct")
    session.run(trained.images[:1])
    kernels = {s["node"]: s["kernel"] for s in session.explain() if s["op"].startswith("conv")}
    convolutions = [node for node in trained.graph.nodes if node.op == "conv2d"]
    assert [node.name for node in convolutions if node.fp16] == ["conv1", "fc"]
    body = [node.name for node in convolutions if not node.fp16]
    assert len(body) == 19  # 16 in blocks and 3 projections
    for name in body:
        assert "_qai8_qsi8cx" in kernels[name], name
