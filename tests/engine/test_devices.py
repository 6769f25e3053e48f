"""Parts on devices of their own: two logical processors in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import textwrap

PLACED = """
    import numpy as np
    import tensorflow as tf

    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )
    import seq2split as s2s
    from seq2split.models import RecurrentDecoder, RecurrentEncoder

    encoder = RecurrentEncoder(50, 4, 8, name="encoder", seed=1)
    layers = encoder, RecurrentDecoder(50, 8, 2, 4, 8, name="decoder", seed=1)
    batch = {"source": [[7, 8, 9], [5, 6, 7, 8, 9]], "target": [[7, 8, 3, 4, 3], [5, 3]]}

    def model(*devices):
        encoder, decoder = (s2s.Part(layer, device=device) for layer, device in zip(layers, devices))
        nodes = [s2s.Node(encoder, ["source"], s2s.Buckets([4, 8]))]
        return s2s.SplitModel([*nodes, s2s.Node(decoder, ["encoder", "target"], s2s.Buckets([3, 6]), loss=True)])

    here, apart = model(None, None), model("/CPU:0", "/CPU:1")
    loss, expected = here.loss_and_gradients(batch)
    placed_loss, found = apart.loss_and_gradients(batch)
    np.testing.assert_array_equal(placed_loss, loss)
    for name in expected:
        for ours, theirs in zip(found[name], expected[name], strict=True):
            np.testing.assert_array_equal(tf.convert_to_tensor(ours), tf.convert_to_tensor(theirs))
    for device in ("/CPU:0", "/CPU:1"):
        part = s2s.Part(tf.keras.layers.Dense(3, activation="tanh"), device=device)
        outputs, residuals = part.build(tf.TensorSpec([2, 4], tf.float32)).forward(tf.ones([2, 4]))
        assert outputs.device.endswith(device[1:]), outputs.device
        assert residuals.nbytes == 0 or all(each.device.endswith(device[1:]) for each in residuals.held)
    graph = s2s.Part(lambda x: tf.sin(tf.cos(x)), variables=[], device="/CPU:1").build(tf.TensorSpec([2], tf.float32))
    _, residuals = graph.forward(tf.ones([2]))
    assert residuals.nbytes and all(each.device.endswith("CPU:1") for each in residuals.held)
"""


def test_parts_run_where_they_are_placed_with_the_same_gradients():
    subprocess.run([sys.executable, "-c", textwrap.dedent(PLACED)], check=True)
