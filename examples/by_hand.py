"""Two parts, two optimizers, and the gradient of what lies between them delivered by hand.

So could two processes, or two machines, train one model: only the outputs and their cotangents cross. Ten steps are
compared with the same model unsplit, on an ordinary tape. Run `python examples/by_hand.py`.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

import seq2split as s2s

ROWS, FEATURES, UNITS, CLASSES, STEPS = 32, 8, 16, 4, 10


def make_layers() -> tuple[keras.Sequential, keras.Sequential]:
    """Make the two parts, the same each time."""
    keras.utils.set_random_seed(1)
    lower = keras.Sequential([keras.Input([FEATURES]), keras.layers.Dense(UNITS, "tanh"), keras.layers.Dense(UNITS)])
    upper = keras.Sequential([keras.Input([UNITS]), keras.layers.LayerNormalization(), keras.layers.Dense(CLASSES)])
    return lower, upper


def make_optimizers() -> tuple[keras.optimizers.Optimizer, keras.optimizers.Optimizer]:
    """Make an optimizer for each part."""
    return keras.optimizers.Adam(0.01), keras.optimizers.SGD(0.5)


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Return the mean loss."""
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))


def train_apart(inputs: np.ndarray, labels: np.ndarray) -> list[float]:
    """Train the two parts, each with its own graphs and optimizer; returns the losses."""
    lower, upper = make_layers()
    first_optimizer, last_optimizer = make_optimizers()
    first = s2s.Part(lower, name="lower")
    last = s2s.Part(lambda hidden, labels: cross_entropy(upper(hidden), labels), variables=upper.trainable_variables)
    first_graph = first.build(tf.TensorSpec([ROWS, FEATURES]))
    last_graph = last.build(
        tf.TensorSpec([ROWS, UNITS]), tf.TensorSpec([ROWS], tf.int32), trace=["value_and_gradients"]
    )
    losses = []
    for _ in range(STEPS):
        hidden, residuals = first_graph.forward(inputs)
        loss, (hidden_ct, _), last_gradients = last_graph.value_and_gradients(hidden, labels)
        _, first_gradients = first_graph.backward(residuals, hidden_ct)  # hidden_ct is all that came back
        first_optimizer.apply_gradients(zip(first_gradients, first.trainable_variables, strict=True))
        last_optimizer.apply_gradients(zip(last_gradients, last.trainable_variables, strict=True))
        losses.append(float(loss))
    return losses


def train_joint(inputs: np.ndarray, labels: np.ndarray) -> list[float]:
    """Train the unsplit model with the same two optimizers; returns the losses."""
    lower, upper = make_layers()
    optimizers = make_optimizers()
    losses = []
    for _ in range(STEPS):
        with tf.GradientTape(persistent=True) as tape:
            loss = cross_entropy(upper(lower(inputs)), labels)
        for layer, optimizer in zip((lower, upper), optimizers, strict=True):
            gradients = tape.gradient(loss, layer.trainable_variables)
            optimizer.apply_gradients(zip(gradients, layer.trainable_variables, strict=True))
        losses.append(float(loss))
    return losses


def main() -> None:
    """Train both, and compare."""
    random = np.random.default_rng(1)
    inputs = random.normal(size=[ROWS, FEATURES]).astype(np.float32)
    labels = random.integers(0, CLASSES, ROWS).astype(np.int32)
    apart, joint = train_apart(inputs, labels), train_joint(inputs, labels)
    print(f"loss {apart[0]:.4f} -> {apart[-1]:.4f}")
    print(f"largest difference from the unsplit model {np.max(np.abs(np.subtract(apart, joint))):.1e}")


if __name__ == "__main__":
    main()
