# SPDX-License-Identifier: Apache-2.0
"""Find the three quantiles that predict the bounds of held-out photographs best.

    python bench/accuracy/feature_alphas.py

Leaves out one photograph of the training and calibration splits at a time, fits on the crops of the
others and predicts those of the left-out one. Prints the mean squared error of the predicted
bounds, relative to their variance (the error of the static average), for the best sets of
quantiles. The test photographs are not used. `qppengine.quantization.FEATURE_ALPHAS` is the
best set over both upscales of those above 0.95, which one pass finds: others take twice as long.
"""

from __future__ import annotations

import itertools

import numpy as np
from qppengine import calibrate, photos
from qppengine.demo import ALPHA, CALIBRATION_SAMPLES, import_espcn
from sklearn.linear_model import LinearRegression

CANDIDATES = (0.5, 0.6, 0.75, 0.9, 0.97, 0.99, 0.997, 0.999, 0.9998)
UPSCALES = (3, 2)
SHOWN = 5


def relative_errors(upscale: int) -> dict[tuple[float, ...], float]:
    """Mean over the bounds, for every set of three candidates."""
    samples = list(photos.calibration_samples(upscale, count=CALIBRATION_SAMPLES))
    bounds = calibrate(import_espcn(upscale), samples, ALPHA).bounds.reshape(len(samples), -1)
    bounds = bounds[:, bounds.var(axis=0) > 0]
    fp16 = [np.asarray(x, np.float16).astype(np.float32) for x in samples]
    quantiles = np.array([np.quantile(x, CANDIDATES, method="inverted_cdf") for x in fp16])
    rest = np.array([(x.mean(), x.max()) for x in fp16])
    count = len(photos.names("train")) + len(photos.names("calibration"))
    photo = np.arange(len(samples)) % count

    errors = {}
    for chosen in itertools.combinations(range(len(CANDIDATES)), 3):
        features = np.concatenate([quantiles[:, chosen], rest], axis=1)
        predicted = np.zeros_like(bounds)
        for left_out in range(count):
            seen = photo != left_out
            model = LinearRegression().fit(features[seen], bounds[seen])
            predicted[~seen] = model.predict(features[~seen])
        error = ((predicted - bounds) ** 2).mean(axis=0) / bounds.var(axis=0)
        errors[tuple(CANDIDATES[i] for i in chosen)] = float(error.mean())
    return errors


def main() -> None:
    """Prints the table."""
    errors = [relative_errors(upscale) for upscale in UPSCALES]
    total = {chosen: sum(error[chosen] for error in errors) for chosen in errors[0]}
    print("alphas                  " + "".join(f"  x{upscale}    " for upscale in UPSCALES))
    for chosen in sorted(total, key=total.__getitem__)[:SHOWN]:
        print(f"{chosen!s:24}" + "".join(f"  {error[chosen]:.4f}" for error in errors))


if __name__ == "__main__":
    main()
