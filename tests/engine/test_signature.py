"""What crosses a part graph's boundary is checked: errors name the leaf, what was expected, and the mend."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from engine_trials import (
    check_error,
    dense_graph,
)

from seq2split.engine import Part

spec = tf.TensorSpec


def nest_graph():
    return Part(lambda pair: (pair["x"], {"y": pair["n"]}), variables=[], name="encoder").build(
        {"x": spec([2]), "n": spec([2], tf.int32)}
    )


def cotangents(make, *inputs):
    def backward(outputs_ct):
        graph = make()
        _, residuals = graph.forward(*inputs)
        graph.backward(residuals, outputs_ct)

    return backward


dense_backward = cotangents(dense_graph, np.ones([2, 4], "float32"))


nest_backward = cotangents(nest_graph, {"x": np.ones(2, "float32"), "n": np.ones(2, "int32")})


# name: what to do, the error, and what its message holds: what was given, what was expected, the mend.
ERRORS = {
    "shape": (
        lambda: dense_graph().forward(np.ones([2, 5], "float32")),
        ValueError,
        ["part 'encoder'", "argument[0]", "[2, 5]", "expected [2, 4]", "part.build("],
    ),
    "rank": (
        lambda: dense_graph().infer(1.0),
        ValueError,
        ["argument[0]", "shape []", "expected [2, 4]", "part.build("],
    ),
    "dtype": (
        lambda: dense_graph().forward(np.ones([2, 4])),
        ValueError,
        ["part 'encoder'", "argument[0]", "float64", "expected float32", "tf.cast(x, tf.float32)"],
    ),
    "leaf path": (
        lambda: nest_graph().forward({"x": np.ones(2, "float32"), "n": np.ones(2, "int64")}),
        ValueError,
        ["argument[0]['n']", "int64", "expected int32", "tf.cast"],
    ),
    "not a tensor": (
        lambda: dense_graph().forward(None),
        ValueError,
        ["part 'encoder'", "argument[0] is None", "expected a tensor or an array of float32"],
    ),
    "list": (
        lambda: dense_graph().forward([[1.0, 2.0, 3.0, 4.0]] * 2),
        ValueError,
        ["part 'encoder'", "([[1.0, 2.0", "expected (float32[2, 4],)", "a Python list is a nest, not an array"],
    ),
    "too many arguments": (
        lambda: dense_graph().forward(tf.ones([2, 4]), tf.ones([2])),
        ValueError,
        ["(float32[2, 4], float32[2])", "expected (float32[2, 4],)", "Give one entry for each argument"],
    ),
    "other keys": (
        lambda: nest_graph().infer({"x": tf.ones(2), "m": tf.ones(2, tf.int32)}),
        ValueError,
        ["'m': int32[2]", "expected ({", "'n': int32[2]", "Give one entry for each argument, in the same nest"],
    ),
    "cotangent nest": (
        lambda: nest_backward(tf.ones(2)),
        ValueError,
        ["part 'encoder'", "cotangents for its outputs", "nest float32[2]", "expected (float32[2], {", "same nest"],
    ),
    "cotangent keys": (lambda: nest_backward((None, {"z": None})), ValueError, ["'z': None", "'y': int32[2]"]),
    "cotangent shape": (
        lambda: dense_backward(tf.ones([2, 4])),
        ValueError,
        ["the cotangent of output", "[2, 4]", "expected [2, 3]"],
    ),
    "cotangent dtype": (
        lambda: dense_backward(np.ones([2, 3])),
        ValueError,
        ["the cotangent of output", "float64", "expected float32", "tf.cast"],
    ),
    "cotangent of another size than the forward had": (
        lambda: cotangents(lambda: dense_graph(batch=None), np.ones([2, 4], "float32"))(tf.ones([5, 3])),
        ValueError,
        ["the cotangent of output", "[5, 3]", "expected [2, 3]"],
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_error_teaches(name):
    check_error(*ERRORS[name])
