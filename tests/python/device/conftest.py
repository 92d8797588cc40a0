# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from pathlib import Path

import pytest

from device.make_models import write_models


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of models: written elsewhere, or here and now."""
    if folder := os.environ.get("QPPENGINE_TEST_MODELS"):
        return Path(folder)
    path = tmp_path_factory.mktemp("models")
    write_models(path)
    return path
