"""Trains a ResNetV2 on a manifest's images: dataset -> features -> fitting -> evaluation -> reporting, inference.

import train

run = train.fit("manifests/even.csv", train.Settings(weights="resnet50v2.weights.h5"))
train.compare(["runs/original", "runs/even"])
"""

import os

# TensorFlow prints a page of build notes on stderr unless this is set before it is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from train.api import compare, fit, label_errors, predict, report, shift
from train.settings import Settings

__all__ = ["Settings", "compare", "fit", "label_errors", "predict", "report", "shift"]
