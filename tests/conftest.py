"""Keeps TensorFlow quiet and random numbers repeatable."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import gc
import random

import numpy as np
import pytest

gc.set_threshold(100_000, 50, 50)  # graphs are many objects, and seldom garbage


@pytest.fixture(autouse=True)
def _seeds():
    # Keras draws its seeds from `random`. Not tf.random.set_seed: it drops every compiled function from the cache.
    random.seed(0)
    np.random.seed(0)


@pytest.fixture(scope="module", autouse=True)
def _frozen():
    # The graphs that modules keep are gigabytes of Python's objects in the end, which each later search for garbage
    # would go through again.
    gc.collect()
    gc.freeze()
