"""Two parts trained in two processes, each with an optimizer of its own, equal to training them joined.

The encoder's process sends its outputs, and the decoder's sends back the gradient of the loss with respect to them: the
one thing that must cross. Neither knows the other's variables, optimizer or code. Beside them the unsplit model is
trained on the same batches by one ordinary gradient tape, and every step is compared.

    python experiments/training_apart.py
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
from multiprocessing.connection import Connection

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # of what is printed the table matters

import keras
import numpy as np
import tensorflow as tf

import seq2split as s2s
from seq2split.common.tables import table
from seq2split.models import Encoded, RecurrentDecoder, RecurrentEncoder

VOCABULARY, UNITS, ROWS, TIME, BOS, BATCHES, PRECISION = 50, 16, 8, 6, 2, 2, "float64"
FIELD = s2s.Sequences(tf.TensorSpec([ROWS, TIME], tf.int32), tf.TensorSpec([ROWS], tf.int32))
LIMIT = 1e-6


def make_encoder() -> tuple[RecurrentEncoder, keras.optimizers.Optimizer]:
    """The encoder and its optimizer: Adam, with a rate that decays."""
    rate = keras.optimizers.schedules.InverseTimeDecay(0.01, decay_steps=10, decay_rate=0.5)
    return RecurrentEncoder(VOCABULARY, UNITS, UNITS, seed=1, dtype=PRECISION), keras.optimizers.Adam(rate)


def make_decoder() -> tuple[RecurrentDecoder, keras.optimizers.Optimizer]:
    """The decoder and its optimizer: plain descent."""
    return RecurrentDecoder(VOCABULARY, UNITS, BOS, UNITS, UNITS, seed=2, dtype=PRECISION), keras.optimizers.SGD(0.5)


def batch_of(step: int) -> dict[str, s2s.Sequences]:
    """The batch of a step; both processes make it from the step's number."""
    random = np.random.default_rng(step % BATCHES)
    pieces, lengths = random.integers(3, VOCABULARY, [2, ROWS, TIME]), random.integers(1, TIME + 1, [2, ROWS])
    fields = [s2s.Sequences(*(each.astype(np.int32) for each in pair)) for pair in zip(pieces, lengths, strict=True)]
    return dict(zip(("source", "target"), fields, strict=True))


def encode_apart(connection: Connection, steps: int) -> None:
    """The encoder's process."""
    keras.utils.set_random_seed(1)
    encoder, optimizer = make_encoder()
    graph = s2s.Part(encoder).build(FIELD)
    for step in range(steps):
        outputs, residuals = graph.forward(batch_of(step)["source"])
        send(connection, tf.nest.flatten(outputs))
        values_ct, summary_ct = receive(connection)
        cotangents = Encoded(s2s.Sequences(values_ct, None), summary_ct)
        _, gradients = graph.backward(residuals, cotangents)
        optimizer.apply(gradients, graph.variables)
        send(connection, graph.variables)


def train_apart(steps: int) -> list[tuple[float, list[np.ndarray]]]:
    """The decoder's process, which starts the encoder's; returns the loss and all variables after each step."""
    connection, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=encode_apart, args=(theirs, steps), daemon=True)
    process.start()
    theirs.close()  # so that the end of the process is the end of what can be received
    keras.utils.set_random_seed(2)
    decoder, optimizer = make_decoder()
    graph, history = None, []
    for step in range(steps):
        values, lengths, summary = receive(connection)
        outputs = Encoded(s2s.Sequences(values, lengths), summary)
        if graph is None:
            specs = tf.nest.map_structure(lambda each: tf.TensorSpec(each.shape, each.dtype), outputs)
            graph = s2s.Part(decoder).build(specs, FIELD, trace=["value_and_gradients"])
        target = batch_of(step)["target"]
        share = 1.0 / target.lengths.sum()  # the loss is a sum over positions
        (loss, _), (outputs_ct, _), gradients = graph.value_and_gradients(outputs, target, loss_ct=share)
        send(connection, [outputs_ct.outputs.values, outputs_ct.summary])
        optimizer.apply(gradients, graph.variables)
        history.append((float(loss) * share, [*receive(connection), *map(keras.ops.convert_to_numpy, graph.variables)]))
    process.join()
    return history


def train_joined(steps: int) -> list[tuple[float, list[np.ndarray]]]:
    """The unsplit model: the same layers, batches and optimizers, and one tape over both."""
    keras.utils.set_random_seed(1)
    encoder, encoder_optimizer = make_encoder()
    keras.utils.set_random_seed(2)
    decoder, decoder_optimizer = make_decoder()
    variables = [encoder.trainable_variables, decoder.trainable_variables]

    @tf.function(autograph=False)
    def gradients_of(batch):
        with tf.GradientTape() as tape:
            loss, _ = decoder(encoder(batch["source"], training=True), batch["target"], training=True)
            share = 1.0 / tf.cast(tf.reduce_sum(batch["target"].lengths), loss.dtype)
        found = tape.gradient(loss, [[each.value for each in part] for part in variables], output_gradients=share)
        return loss * share, found

    history = []
    for step in range(steps):
        loss, (first, last) = gradients_of(tf.nest.map_structure(tf.constant, batch_of(step)))
        encoder_optimizer.apply(first, variables[0])
        decoder_optimizer.apply(last, variables[1])
        history.append((float(loss), [keras.ops.convert_to_numpy(each) for part in variables for each in part]))
    return history


def send(connection: Connection, tensors: list) -> None:
    """Send arrays as the bytes of an .npz file, which holds nothing that is executed."""
    file = io.BytesIO()
    np.savez(file, *map(keras.ops.convert_to_numpy, tensors))
    connection.send_bytes(file.getvalue())


def receive(connection: Connection) -> list[np.ndarray]:
    """The inverse of `send`."""
    with np.load(io.BytesIO(connection.recv_bytes()), allow_pickle=False) as arrays:
        return [arrays[f"arr_{index}"] for index in range(len(arrays.files))]


def main() -> None:
    """Train both ways, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    steps = parser.parse_args().steps
    worst, rows = 0.0, []
    for step, (apart, joined) in enumerate(zip(train_apart(steps), train_joined(steps), strict=True), 1):
        difference = max(float(np.abs(a - b).max()) for a, b in zip(apart[1], joined[1], strict=True))
        worst = max(worst, difference, abs(apart[0] - joined[0]))
        rows.append([step, f"{apart[0]:.6f}", f"{joined[0]:.6f}", f"{difference:.1e}"])
    print(table(("step", "loss, apart", "loss, joined", "largest difference of a variable"), rows, flush_right=True))
    if worst > LIMIT:
        raise SystemExit(f"training apart and joined differ by {worst:.1e}, more than {LIMIT:.0e}")
    print(f"equal: no loss and no variable differs by more than {worst:.1e}")


if __name__ == "__main__":
    main()
