# SPDX-License-Identifier: Apache-2.0
"""Tests of the engine that need only NumPy and the extension, for 64-bit Arm under QEMU, too.

There they read the models that `make_models.py` has written on the host, from the folder that the
environment variable QPPENGINE_TEST_MODELS names.
"""
