"""Trains a ResNetV2 on a manifest's images: dataset -> features -> fitting -> evaluation -> reporting, inference."""

import os

# TensorFlow prints a page of build notes on stderr unless this is set before it is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
