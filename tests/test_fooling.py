"""Images made to fool a classifier, and the detector in front of it."""

from __future__ import annotations

import os
import sys

import numpy as np
import pytest

if "keras" not in sys.modules:
    os.environ.setdefault("KERAS_BACKEND", "torch")

import helpers_toy as toy
import knownot

WAY = knownot.Preprocess(16, 16, scale=1 / 255)


def toy_model():
    return knownot.open_model(toy.graph(), size=(16, 16))
