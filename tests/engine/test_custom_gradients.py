"""Models are made and dropped, and nothing of them stays: neither graphs, nor what TensorFlow registers for them."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import keras
import pytest
import tensorflow as tf
from tensorflow.python.framework.ops import gradient_registry

import seq2split as s2s

BUCKETS = s2s.Buckets([2, 4])
BATCH = {"source": [[5, 6], [8, 9, 4]], "target": [[3, 4], [5, 6, 7, 8]]}
spec = tf.TensorSpec


def graphs():
    """Return how many graphs there are."""
    gc.collect()
    return sum(isinstance(each, tf.Graph) for each in gc.get_objects())


def registered():
    return sum(name.startswith("CustomGradient-") for name in gradient_registry.list())


def ready_model(encoder, decoder):
    encoder = s2s.Node(encoder, "source", BUCKETS, name="encoder")
    return s2s.SplitModel([encoder, s2s.Node(decoder, [encoder, "target"], BUCKETS, loss=True, name="decoder")])


def recurrent():
    encoder = s2s.models.RecurrentEncoder(20, 4, 4, dropout=0.1)
    model = ready_model(encoder, s2s.models.RecurrentDecoder(20, 4, 2, 4, 4))
    model.loss_and_gradients(BATCH)
    model.losses(BATCH)


def transformer():
    model = ready_model(
        s2s.models.TransformerEncoder(20, 4, 1, 2, 8), s2s.models.TransformerDecoder(20, [4], 2, 4, 1, 2, 8)
    )
    model.loss_and_gradients(BATCH)


def trainer():
    model = ready_model(s2s.models.RecurrentEncoder(20, 4, 4), s2s.models.RecurrentDecoder(20, 4, 2, 4, 4))
    batches = s2s.Batches(BATCH, model, tokens=20)
    s2s.Trainer(model, keras.optimizers.Adam()).fit(batches, steps=2, progress=False)


@tf.custom_gradient
def doubled(x):
    y = 2 * x
    return y, lambda ct: 2 * ct + 0 * y


def own_custom_gradient():
    """Also in a loop and in a branch, and where everything is computed again."""

    def fn(x):
        x = tf.while_loop(lambda i, _: i < 2, lambda i, h: (i + 1, doubled(h)), (0, x), maximum_iterations=2)[1]
        return doubled(tf.cond(x[0] > 0, lambda: doubled(x), lambda: x))

    for save in ("needed", "inputs"):
        graph = s2s.Part(fn, variables=[], save=save).build(spec([2]), trace=["forward", "infer"])
        _, residuals = graph.forward(tf.ones([2]))
        assert graph.backward(residuals, tf.ones([2])).inputs_ct[0].numpy().tolist() == [16, 16]


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(recurrent, marks=pytest.mark.long),
        pytest.param(transformer, marks=pytest.mark.long),
        trainer,
        own_custom_gradient,
    ],
    ids=lambda make: make.__name__,
)
def test_nothing_stays(make):
    make()  # what is made once for all
    before = graphs(), registered()
    for _ in range(3):
        make()
    assert (graphs(), registered()) == before


def resident():
    """Return the bytes of memory that this process holds."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays():
    """Five dropped graphs of 400 operations held 5 MB each when they were run by the raw operation."""

    def make():
        part = s2s.Part(lambda x: tf.add_n([tf.sin(x * float(place)) for place in range(200)]), variables=[])
        graph = part.build(spec([4]), trace=["forward", "infer"])
        graph.infer(tf.ones([4]))
        outputs, residuals = graph.forward(tf.ones([4]))
        graph.backward(residuals, outputs)

    for _ in range(3):
        make()
    before = resident()
    for _ in range(5):
        make()
    assert resident() - before < 10e6


def test_a_function_of_the_users_can_still_be_differentiated():
    fn = tf.function(lambda x: doubled(x))
    graph = s2s.Part(lambda x: 3 * fn(x), variables=[]).build(spec([]))
    assert float(graph.forward(1.0).outputs) == 6
    x = tf.Variable(1.0)
    with tf.GradientTape() as tape:
        y = fn(x)
    assert float(tape.gradient(y, x)) == 2
