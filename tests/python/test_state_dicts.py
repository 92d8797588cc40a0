# SPDX-License-Identifier: Apache-2.0
"""The zoo's parameters are called as in the releases whose checkpoints users have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

pytest.importorskip("torch")

from qppengine.models.hrnet import HRNetV2, hrnet_w18
from qppengine.models.resnet import ResNet, resnet18, resnet34

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

STATISTICS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def norm(name: str) -> list[str]:
    return [f"{name}.{key}" for key in STATISTICS]


def pair(conv: str, bn: str) -> list[str]:
    """A convolution without bias and its normalization."""
    return [f"{conv}.weight", *norm(bn)]


def block(name: str, convolutions: int, downsample: bool = False) -> Iterator[str]:
    for i in range(1, convolutions + 1):
        yield from pair(f"{name}.conv{i}", f"{name}.bn{i}")
    if downsample:
        yield from pair(f"{name}.downsample.0", f"{name}.downsample.1")


def resnet_keys(depths: Sequence[int]) -> Iterator[str]:
    """Of torchvision's ResNets with basic blocks."""
    yield from pair("conv1", "bn1")
    for stage, depth in enumerate(depths, 1):
        for index in range(depth):
            yield from block(f"layer{stage}.{index}", 2, downsample=stage > 1 and index == 0)
    yield from ("fc.weight", "fc.bias")


def hrnet_keys(head: str) -> Iterator[str]:
    """Of HRNetV2-W18 in the authors' repositories for segmentation and facial landmarks."""
    yield from (*pair("conv1", "bn1"), *pair("conv2", "bn2"))
    for index in range(4):
        yield from block(f"layer1.{index}", 3, downsample=index == 0)
    for stage, modules in ((2, 1), (3, 4), (4, 3)):
        transition = f"transition{stage - 1}"
        if stage == 2:  # the first branch, too, gets other channels
            yield from pair(f"{transition}.0.0", f"{transition}.0.1")
        yield from pair(f"{transition}.{stage - 1}.0.0", f"{transition}.{stage - 1}.0.1")
        for module in range(modules):
            name = f"stage{stage}.{module}"
            for branch in range(stage):
                for index in range(4):
                    yield from block(f"{name}.branches.{branch}.{index}", 2)
            for i in range(stage):
                for j in range(stage):
                    layer = f"{name}.fuse_layers.{i}.{j}"
                    if j > i:
                        yield from pair(f"{layer}.0", f"{layer}.1")
                    for step in range(i - j):
                        yield from pair(f"{layer}.{step}.0", f"{layer}.{step}.1")
    yield from (f"{head}.0.weight", f"{head}.0.bias", *norm(f"{head}.1"))
    yield from (f"{head}.3.weight", f"{head}.3.bias")


@pytest.mark.parametrize(("make", "depths"), [(resnet18, (2, 2, 2, 2)), (resnet34, (3, 4, 6, 3))])
def test_resnets_have_the_keys_of_torchvision(
    make: Callable[[], ResNet], depths: Sequence[int]
) -> None:
    state = make().state_dict()
    assert sorted(state) == sorted(resnet_keys(depths))
    assert state["conv1.weight"].shape == (64, 3, 7, 7)
    assert state["layer2.0.downsample.0.weight"].shape == (128, 64, 1, 1)
    assert state["layer4.1.conv2.weight"].shape == (512, 512, 3, 3)
    assert state["layer3.0.bn1.num_batches_tracked"].shape == ()
    assert state["fc.weight"].shape == (1000, 512)


def test_hrnet_has_the_keys_of_its_release_for_segmentation() -> None:
    state = hrnet_w18().state_dict()
    assert sorted(state) == sorted(hrnet_keys("last_layer"))
    assert state["conv2.weight"].shape == (64, 64, 3, 3)
    assert state["layer1.0.conv3.weight"].shape == (256, 64, 1, 1)
    assert state["transition1.0.0.weight"].shape == (18, 256, 3, 3)
    assert state["transition1.1.0.0.weight"].shape == (36, 256, 3, 3)
    assert state["stage2.0.fuse_layers.0.1.0.weight"].shape == (18, 36, 1, 1)
    assert state["stage4.0.fuse_layers.3.0.1.0.weight"].shape == (18, 18, 3, 3)
    assert state["stage4.2.fuse_layers.3.0.2.0.weight"].shape == (144, 18, 3, 3)
    assert state["last_layer.0.weight"].shape == (270, 270, 1, 1)
    assert state["last_layer.3.weight"].shape == (19, 270, 1, 1)


@pytest.mark.parametrize("landmarks", [29, 68, 98])  # COFW, 300W, WFLW
def test_hrnet_has_the_keys_of_its_release_for_facial_landmarks(landmarks: int) -> None:
    state = hrnet_w18(landmarks, "heatmaps").state_dict()
    assert sorted(state) == sorted(hrnet_keys("head"))
    assert state["head.3.weight"].shape == (landmarks, 270, 1, 1)


def test_width_and_depth_are_parameters() -> None:
    small = ResNet((1, 1), width=8, classes=10).state_dict()
    assert sorted(small) == sorted(resnet_keys((1, 1)))
    assert small["fc.weight"].shape == (10, 16)
    narrow = HRNetV2(3, width=4, modules=(1, 1), blocks=2).state_dict()
    assert narrow["stage3.0.branches.2.1.conv2.weight"].shape == (16, 16, 3, 3)
    assert not [key for key in narrow if key.startswith(("stage4", "layer1.2"))]
    assert narrow["last_layer.0.weight"].shape == (28, 28, 1, 1)
