# SPDX-License-Identifier: Apache-2.0
"""Networks trained here: PyTorch definition, training script and exported weights."""
