"""Keeps TensorFlow quiet and random numbers repeatable."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import random

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _seeds():
    # Keras draws its seeds from `random`. Not tf.random.set_seed: it drops every compiled function from the cache.
    random.seed(0)
    np.random.seed(0)
