# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""What every test file shares: how hypothesis runs."""

from hypothesis import settings

# No deadline: the first call of a TensorFlow function traces it, which takes as long as a hundred later ones.
# Derandomized: a run of an unchanged tree gives an unchanged result.
settings.register_profile("tensorflow", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("tensorflow")
