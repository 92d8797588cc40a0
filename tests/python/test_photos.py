# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from qppengine import photos

pytest.importorskip("PIL", reason="the photographs are PNG and JPEG files")

LEARNT_FROM = (*photos.names("train"), *photos.names("calibration"))


def test_every_photograph_is_in_exactly_one_part() -> None:
    parts = [photos.names(split) for split in get_args(photos.Split)]
    listed = [name for part in parts for name in part]
    assert sorted(listed) == sorted(photo.name for photo in photos.PHOTOS)
    assert len(set(listed)) == len(listed)
    assert all(parts)
    assert len(photos.names("test")) >= 4


def test_no_file_is_listed_twice() -> None:
    assert len({(photo.package, photo.path) for photo in photos.PHOTOS}) == len(photos.PHOTOS)


def test_every_photograph_states_its_licence_and_source() -> None:
    assert all(photo.licence and photo.source for photo in photos.PHOTOS)


@pytest.mark.parametrize("name", [photo.name for photo in photos.PHOTOS])
def test_luminance_is_a_float32_plane_in_0_to_1(name: str) -> None:
    luma = photos.load_luminance(name)
    assert luma.dtype == np.float32
    assert luma.ndim == 2
    assert min(luma.shape) >= 288
    assert 0 <= luma.min() < luma.max() <= 1


def test_luminance_weighs_the_colours_as_bt601() -> None:
    pillow = pytest.importorskip("PIL.Image")
    photo = next(photo for photo in photos.PHOTOS if photo.name == "coffee")
    with pillow.open(photos._file(photo)) as image:
        integer_luma = np.asarray(image.convert("L"), np.float32)
    assert np.abs(photos.load_luminance("coffee") * 255 - integer_luma).max() <= 0.51


def test_unknown_photograph_names_the_known_ones() -> None:
    with pytest.raises(KeyError, match=r"no photograph 'lena'.*chelsea"):
        photos.load_luminance("lena")


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="'flower' comes with scikit-learn"):
        photos.load_luminance("flower")


@pytest.mark.parametrize("factor", [2, 3])
def test_downscale_and_upscale_are_inverse_in_size(factor: int) -> None:
    luma = photos.load_luminance("chelsea")[:100, :121]
    low = photos.downscale(luma, factor)
    assert low.shape == (100 // factor, 121 // factor)
    assert low.dtype == np.float32
    high = photos.upscale_bicubic(low, factor)
    assert high.shape == photos.crop_to_multiple(luma, factor).shape
    assert high.dtype == np.float32
    assert np.mean((high - photos.crop_to_multiple(luma, factor)) ** 2) < 1e-3


def test_resizing_keeps_a_flat_image_and_the_range() -> None:
    flat = np.full((12, 18), 0.25, np.float32)
    np.testing.assert_allclose(photos.downscale(flat, 3), 0.25, atol=1e-6)
    edge = np.zeros((12, 18), np.float32)
    edge[:, 9:] = 1
    high = photos.upscale_bicubic(edge, 3)
    assert high.min() == 0
    assert high.max() == 1


def test_downscale_is_antialiased() -> None:
    stripes = np.tile(np.array([0, 1], np.float32), (60, 30))
    inner = photos.downscale(stripes, 3)[:, 2:-2]
    assert np.abs(inner - 0.5).max() < 0.25  # plain subsampling would keep full contrast


@pytest.mark.parametrize("factor", [0, 13])
def test_a_factor_without_sense_is_refused(factor: int) -> None:
    with pytest.raises(ValueError, match=f"got {factor} for"):
        photos.crop_to_multiple(np.zeros((12, 18), np.float32), factor)


def test_exposure_is_a_clipped_gain_and_offset() -> None:
    rng = np.random.default_rng(7)
    luma = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    gains = []
    for _ in range(500):
        exposed, gain = photos.vary_exposure(luma, rng)
        assert exposed.dtype == np.float32
        assert 0 <= exposed.min() <= exposed.max() <= photos.SATURATION
        assert abs(exposed[4, 0] - min(gain * luma[4, 0], photos.SATURATION)) < 0.1
        gains.append(gain)
    assert abs(np.mean(np.log(gains))) < 0.1
    assert abs(np.std(np.log(gains)) - photos.GAIN_SIGMA) < 0.05


def test_pairs_are_reproducible_and_fit() -> None:
    first = list(photos.pairs("test", 3, seed=1, exposures=2))
    second = list(photos.pairs("test", 3, seed=1, exposures=2))
    assert [pair.name for pair in first] == [n for n in photos.names("test") for _ in range(2)]
    assert len({pair.gain for pair in first}) == len(first)
    for one, two in zip(first, second, strict=True):
        assert one.gain == two.gain
        assert one.high.shape == (one.low.shape[0] * 3, one.low.shape[1] * 3)
        np.testing.assert_array_equal(one.low, two.low)
        np.testing.assert_array_equal(one.high, two.high)


def test_pairs_without_a_seed_keep_the_exposure() -> None:
    for pair in photos.pairs("test", 2, seed=None):
        assert pair.gain == 1
        original = photos.crop_to_multiple(photos.load_luminance(pair.name), 2)
        np.testing.assert_array_equal(pair.high, original)


def test_calibration_samples_are_reproducible_and_differ() -> None:
    first = list(photos.calibration_samples(3, count=12, seed=3))
    second = list(photos.calibration_samples(3, count=12, seed=3))
    other = list(photos.calibration_samples(3, count=12, seed=4))
    for one, two, three in zip(first, second, other, strict=True):
        assert one.shape == (1, 1, 96, 96)
        assert one.dtype == np.float32
        assert one.flags.c_contiguous
        assert 0 <= one.min() < one.max() <= photos.SATURATION
        np.testing.assert_array_equal(one, two)
        assert not np.array_equal(one, three)


def test_calibration_samples_never_open_a_test_photograph(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    load = photos.load_luminance

    def record(name: str) -> photos.Luma:
        opened.append(name)
        return load(name)

    monkeypatch.setattr(photos, "load_luminance", record)
    next(photos.calibration_samples(2, count=1))
    assert opened == list(LEARNT_FROM)


def test_calibration_crop_larger_than_a_photograph_is_refused() -> None:
    with pytest.raises(ValueError, match="600 x 600"):
        list(photos.calibration_samples(3, count=3, size=200))


def test_rgb_samples_are_crops_of_the_size_asked_for() -> None:
    first, second = (list(photos.rgb_samples("test", 40, 56, 5, seed=1)) for _ in range(2))
    for one, two in zip(first, second, strict=True):
        assert one.shape == (1, 3, 40, 56)
        assert one.dtype == np.float32
        assert one.min() >= 0
        assert one.max() <= 1
        np.testing.assert_array_equal(one, two)
    assert not np.array_equal(first[0], first[4])  # of one photograph
