# SPDX-License-Identifier: Apache-2.0
"""Freely licensed photographs, in a fixed split for training, calibration and test.

The photographs are files inside the installed wheels of scikit-image (``skimage/data``) and
scikit-learn (``sklearn/datasets/images``); nothing is downloaded and neither package is imported.
``PHOTOS`` states the source and the licence of each. Sample images of these packages that are not
listed are synthetic, not photographs, out of focus on purpose, or come without a clear licence.

Images are luminance planes, float32 ``[H, W]``, ITU-R BT.601 luma, or in color, red, green, blue,
float32 ``[3, H, W]``; 1 = nominal white.
A photograph as published is in [0, 1]. With another exposure, highlights can exceed 1, as in the
raw data of a sensor, up to ``SATURATION``.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Luma: TypeAlias = NDArray[np.float32]

Split = Literal["train", "calibration", "test"]

# Exposure: the natural logarithm of the gain is N(0, GAIN_SIGMA), the offset is N(0, OFFSET_SIGMA).
GAIN_SIGMA = 0.5
OFFSET_SIGMA = 0.02
SATURATION = 4.0  # where the sensor clips: two stops above nominal white


@dataclass(frozen=True)
class Photo:
    """One photograph: ``path`` is relative to the folder of ``package``."""

    name: str
    split: Split
    package: Literal["skimage", "sklearn"]
    path: str
    licence: str
    source: str


# As stated by the packages: docstrings of skimage.data, README of sklearn/datasets/images.
# fmt: off
PHOTOS = (
    Photo("camera", "train", "skimage", "data/camera.png", "CC0", "Lav Varshney"),
    Photo("china", "train", "sklearn", "datasets/images/china.jpg", "CC BY 2.0",
          "danielbuechele, flickr.com/photos/danielbuechele/6061409035"),
    Photo("coins", "train", "skimage", "data/coins.png", "no known copyright restrictions",
          "Greek coins, Brooklyn Museum Collection, 51611"),
    Photo("grass", "train", "skimage", "data/grass.png", "CC0",
          "linolafett, deviantart.com/linolafett/art/Grass-01-434853879"),
    Photo("gravel", "train", "skimage", "data/gravel.png", "CC0", "cc0textures.com, Gravel04"),
    Photo("hubble", "train", "skimage", "data/hubble_deep_field.jpg", "public domain",
          "NASA, HubbleSite, news release 2012/37"),
    Photo("ihc", "train", "skimage", "data/ihc.png", "no known copyright restrictions",
          "stained tissue, Center for Microscopy and Molecular Imaging (CMMI)"),
    Photo("retina", "train", "skimage", "data/retina.jpg", "CC0",
          "Mikael Häggström, Wikimedia, Fundus_photograph_of_normal_left_eye.jpg"),
    Photo("brick", "calibration", "skimage", "data/brick.png", "CC0", "cc0textures.com, Bricks25"),
    Photo("rocket", "calibration", "skimage", "data/rocket.jpg", "public domain",
          "SpaceX, flickr.com/photos/spacexphotos/16511594820"),
    Photo("astronaut", "test", "skimage", "data/astronaut.png", "public domain",
          "Eileen Collins, NASA Great Images, flic.kr/p/r9qvLn"),
    Photo("chelsea", "test", "skimage", "data/chelsea.png", "CC0", "Stefan van der Walt"),
    Photo("coffee", "test", "skimage", "data/coffee.png", "CC0",
          "Rachel Michetti, courtesy of Pikolo Espresso Bar"),
    Photo("flower", "test", "sklearn", "datasets/images/flower.jpg", "CC BY 2.0",
          "vultilion, flickr.com/photos/vultilion/6056698931"),
)
# fmt: on
_BY_NAME = {photo.name: photo for photo in PHOTOS}


def names(split: Split) -> tuple[str, ...]:
    """Names of the photographs of ``split``, in a fixed order."""
    return tuple(photo.name for photo in PHOTOS if photo.split == split)


def _scenes(split: Split) -> tuple[str, ...]:
    """The photographs to crop: for calibration also those of training.

    A regressor needs many scenes.
    """
    return (*names("train"), *names(split)) if split == "calibration" else names(split)


def load_rgb(name: str) -> NDArray[np.float32]:
    """Photograph ``name`` at its original size: float32 ``[3, H, W]`` in [0, 1].

    Raises ``KeyError`` for a name not in ``PHOTOS`` and ``ModuleNotFoundError`` if the package the
    photograph comes with is not installed.
    """
    rgb: NDArray[np.float32] = _read(name) / np.float32(255)
    return rgb


def load_luminance(name: str) -> Luma:
    """The luminance of photograph ``name``: float32 ``[H, W]`` in [0, 1]. Raises as `load_rgb`."""
    red, green, blue = _read(name)
    luma: Luma = np.minimum((0.299 * red + 0.587 * green + 0.114 * blue) / 255, np.float32(1))
    return luma


def downscale(luma: Luma, factor: int) -> Luma:
    """Low-res image, antialiased bicubic: ``[H, W]`` to ``[H // factor, W // factor]``.

    Rows and columns beyond a multiple of ``factor`` are cropped first (``crop_to_multiple``).
    """
    luma = crop_to_multiple(luma, factor)
    return resize(luma, luma.shape[0] // factor, luma.shape[1] // factor)


def upscale_bicubic(luma: Luma, factor: int) -> Luma:
    """The baseline of every super-resolution table: ``[H, W]`` to ``[H * factor, W * factor]``."""
    return resize(luma, luma.shape[0] * factor, luma.shape[1] * factor)


def resize(luma: Luma, height: int, width: int) -> Luma:
    """``luma`` at ``[height, width]`` by Pillow's bicubic filter, antialiased where it shrinks.

    The filter overshoots at edges; the result is kept within the range of ``luma``.
    """
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(luma))
    resized = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    return np.clip(resized, luma.min(), luma.max())


def crop_to_multiple(luma: Luma, factor: int) -> Luma:
    """``luma`` without the bottom rows and right columns beyond a multiple of ``factor``."""
    height, width = luma.shape
    if factor < 1 or height < factor or width < factor:
        raise ValueError(f"expected 1 <= factor <= height, width; got {factor} for {luma.shape}")
    return luma[: height - height % factor, : width - width % factor]


def vary_exposure(luma: Luma, rng: np.random.Generator) -> tuple[Luma, float]:
    """``luma`` as a camera with another exposure records it, and the gain.

    Gain (log-normal) and offset (normal) act on the whole image; the result is clipped to
    [0, ``SATURATION``].
    """
    gain = float(np.exp(rng.normal(0.0, GAIN_SIGMA)))
    offset = rng.normal(0.0, OFFSET_SIGMA)
    exposed = luma * np.float32(gain) + np.float32(offset)
    return np.clip(exposed, np.float32(0), np.float32(SATURATION)), gain


class Pair(NamedTuple):
    """A test sample: ``high`` is the ground truth of ``low`` at ``upscale`` times its size."""

    name: str
    gain: float
    low: Luma
    high: Luma


def pairs(split: Split, upscale: int, seed: int | None = 0, exposures: int = 1) -> Iterator[Pair]:
    """Every photograph of ``split``, ``exposures`` times, each time with another exposure.

    The exposure is applied to the high-res photograph, which is then downscaled. The same ``seed``
    gives the same pairs; with ``seed=None`` the photographs keep their exposure (gain 1).
    """
    rng = None if seed is None else np.random.default_rng(seed)
    for name in names(split):
        photo = crop_to_multiple(load_luminance(name), upscale)
        for _ in range(exposures):
            high, gain = (photo, 1.0) if rng is None else vary_exposure(photo, rng)
            yield Pair(name, gain, downscale(high, upscale), high)


def calibration_samples(
    upscale: int, count: int = 300, seed: int = 0, size: int = 96
) -> Iterator[NDArray[np.float32]]:
    """``count`` low-res crops with varied exposure, float32 NCHW ``[1, 1, size, size]``.

    They come in turn from the photographs of training and calibration, at random positions; the
    same ``seed`` gives the same samples.
    """
    rng = np.random.default_rng(seed)
    photos = [load_luminance(name) for name in _scenes("calibration")]
    side = size * upscale
    for i in range(count):
        photo = photos[i % len(photos)]
        if side > min(photo.shape):
            raise ValueError(f"expected a photograph of {side} x {side} or more, got {photo.shape}")
        top, left = (int(rng.integers(0, extent - side + 1)) for extent in photo.shape)
        high, _ = vary_exposure(photo[top : top + side, left : left + side], rng)
        yield downscale(high, upscale)[None, None]


def rgb_samples(
    split: Split, height: int, width: int, count: int, seed: int = 0
) -> Iterator[NDArray[np.float32]]:
    """``count`` color crops with varied exposure, float32 ``[1, 3, height, width]`` in [0, 1].

    They come in turn from the photographs of ``split``, those for calibration from those of
    training, too, between half of a photograph and all of it, scaled to the size; the same ``seed``
    gives the same samples.
    """
    rng = np.random.default_rng(seed)
    photos = [load_rgb(name) for name in _scenes(split)]
    for i in range(count):
        photo = photos[i % len(photos)]
        scale = rng.uniform(0.5, 1) * min(photo.shape[1] / height, photo.shape[2] / width)
        sides = [int(scale * side) for side in (height, width)]
        top, left = (
            int(rng.integers(extent - side + 1))
            for extent, side in zip(photo.shape[1:], sides, strict=True)
        )
        crop = photo[:, top : top + sides[0], left : left + sides[1]]
        exposed = np.minimum(vary_exposure(crop, rng)[0], 1)
        yield np.stack([resize(plane, height, width) for plane in exposed])[None]


def _read(name: str) -> NDArray[np.float32]:
    """Red, green and blue from 0 to 255, ``[3, H, W]``."""
    from PIL import Image

    if name not in _BY_NAME:
        raise KeyError(f"no photograph {name!r}; there are {', '.join(_BY_NAME)}")
    with Image.open(_file(_BY_NAME[name])) as image:
        return np.moveaxis(np.asarray(image.convert("RGB"), np.float32), 2, 0)


def _file(photo: Photo) -> Path:
    spec = importlib.util.find_spec(photo.package)  # locates the package without importing it
    if spec is None or spec.origin is None:
        project = {"skimage": "scikit-image", "sklearn": "scikit-learn"}[photo.package]
        raise ModuleNotFoundError(f"photograph {photo.name!r} comes with {project}: install it")
    return Path(spec.origin).parent / photo.path
