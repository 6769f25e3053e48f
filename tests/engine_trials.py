"""A subject of engine_subjects.py, split and joint, so that the two can be compared."""

from __future__ import annotations

import functools
import inspect
from collections import Counter

import keras
import numpy as np
import pytest
import tensorflow as tf
from engine_subjects import SUBJECTS, Case, Subject

from seq2split.engine import Part
from seq2split.engine.policies import Policy

TOLERANCES = {"float32": 1e-5, "float64": 1e-12, "mixed_bfloat16": 0}
ROWS = [(subject.name, dtype) for subject in SUBJECTS.values() for dtype in subject.dtypes]
every_subject = pytest.mark.parametrize(("name", "dtype"), ROWS)


def is_float(tensor) -> bool:
    return tensor is not None and (tensor.dtype.is_floating or tensor.dtype.is_complex)


def weights_like(outputs):
    """The fixed random cotangents of a nest of outputs."""
    rng = np.random.default_rng(3)

    def weight(output):
        if not is_float(output):
            return None
        draw = rng.normal(size=output.shape)
        draw = draw + 1j * rng.normal(size=output.shape) if output.dtype.is_complex else draw
        return tf.cast(draw, output.dtype)

    return tf.nest.map_structure(weight, outputs)


def values(states: list) -> list[np.ndarray]:
    return [state.numpy() for state in states]


def weighted_sum(outputs, weights):
    """The loss: the sum of all float outputs, weighted."""
    pairs = zip(tf.nest.flatten(outputs), tf.nest.flatten(weights), strict=True)
    terms = [tf.reduce_sum(tf.math.real(tf.math.conj(w) * y)) for y, w in pairs if is_float(y)]
    return tf.add_n([tf.constant(0.0, tf.float64), *[tf.cast(term, tf.float64) for term in terms]])


class Trial:
    """A subject in one dtype: its part, its part graph, and the joint reference, made once for all properties."""

    def __init__(
        self, subject: str | Subject, dtype: str, save: str | Policy = "needed", *, jit_compile: bool | None = None
    ):
        self.subject, self.dtype = SUBJECTS[subject] if isinstance(subject, str) else subject, dtype
        self.jit_compile = jit_compile
        self.case: Case = self.subject.make(dtype)
        self.calls, self.specs = self.case.calls, self.case.signature()
        if self.subject.keras and dtype == "float64":
            self.case.fn(*self.calls[0])  # builds it
        self.part = Part(self.case.fn, variables=self.case.variables, save=save)
        # The counter moves whenever the callable's code runs, by a side effect inside it.
        self.counter = tf.Variable(0, trainable=False)
        self.part._function.fn = self._counted
        self.graph = self.part.build(*self.specs, jit_compile=bool(jit_compile))
        owner = getattr(self.case.fn, "__self__", self.case.fn)
        named = self.case.variables
        self.variables = [v for v in (owner.trainable_variables if named is None else named) if v.trainable]
        states = [*getattr(owner, "variables", []), *(named or []), *self.case.state]
        self.states = list({id(state): state for state in states}.values())
        self._initial = values(self.states)
        self.weights = [weights_like(self.graph.forward(*args)[0]) for args in self.calls]

    def _counted(self, *args, **kwargs):
        self.counter.assign_add(1)
        return self.case.fn(*args, **kwargs)

    def reset(self) -> None:
        for state, value in zip(self.states, self._initial, strict=True):
            state.assign(value)
        self.counter.assign(0)

    def direct(self, args, training):
        """One call of the unsplit callable."""
        takes = isinstance(self.case.fn, keras.Layer) or "training" in inspect.signature(self.case.fn).parameters
        outputs = self.case.fn(*args, training=training) if takes else self.case.fn(*args)
        return tf.nest.map_structure(lambda y: y if y is None else tf.convert_to_tensor(y), outputs)

    @functools.cached_property
    def joint(self):
        """The concrete function of the joint reference: outputs, input cotangents and gradients."""
        variables = [v.value if isinstance(v, keras.Variable) else v for v in self.variables]

        def joint(args, weights):
            flat = tf.nest.flatten(args)
            inputs = [x for x in flat if is_float(x)]
            with tf.GradientTape() as tape:
                tape.watch(inputs)
                outputs = self.direct(args, training=True)
                loss = weighted_sum(outputs, weights)
            found = tape.gradient(loss, inputs + variables)
            dense = iter([g if g is None else tf.convert_to_tensor(g) for g in found[: len(inputs)]])
            inputs_ct = [next(dense) if is_float(x) else None for x in flat]
            return outputs, tf.nest.pack_sequence_as(args, inputs_ct), found[len(inputs) :]

        weight_specs = tf.nest.map_structure(lambda y: y if is_float(y) else None, self.graph.output_specs)
        return tf.function(joint, jit_compile=self.jit_compile).get_concrete_function(self.specs, weight_specs)

    @functools.cached_property
    def joint_results(self):
        """What the reference returns for each call, and the states that it leaves."""
        results = []
        for args, weights in zip(self.calls, self.weights, strict=True):
            self.reset()
            result = self.joint(tf.nest.map_structure(tf.convert_to_tensor, args), weights)
            results.append((result, values(self.states)))
        return results

    def forward(self, call=0):
        """Outputs and residuals of a forward from the initial states."""
        self.reset()
        return self.graph.forward(*self.calls[call])

    def check(self, actual, expected) -> None:
        """Compare two nests of tensors, with `None` and `tf.IndexedSlices`, within the tolerance of the dtype."""
        tf.nest.assert_same_structure(actual, expected)
        for a, b in zip(tf.nest.flatten(actual), tf.nest.flatten(expected), strict=True):
            assert type(a) is type(b), (a, b)
            if a is not None:
                assert (a.dtype, a.shape) == (b.dtype, b.shape)
                close(tf.convert_to_tensor(a), tf.convert_to_tensor(b), TOLERANCES[self.dtype])


@functools.cache
def trial(name: str, dtype: str) -> Trial:
    return Trial(name, dtype)


def close(actual, expected, limit) -> None:
    if not is_float(actual):
        np.testing.assert_array_equal(actual, expected)
        return
    if actual.dtype == tf.bfloat16:
        actual, expected = tf.cast(actual, tf.float32), tf.cast(expected, tf.float32)
    floor = limit * max(1, np.abs(expected).max(initial=0))
    np.testing.assert_allclose(actual, expected, rtol=limit, atol=floor)


def bookkeeping(backward: Counter) -> set[str]:
    """Types of operations that a split model has more of than a joint one, given how many a backward has of each.

    Beside what crosses, the counters of forwards; and where the shape of what is only measured crosses, what makes
    and reads it.
    """
    always = {"Placeholder", "Identity", "NoOp", "AssignAddVariableOp"}
    shapes = {"Empty", "Shape", "Cast", "ConcatV2", "SplitV", "StatefulPartitionedCall"}
    return always | shapes if "Empty" in backward else always


def operations(concrete) -> Counter:
    """How often each type of operation stands in a concrete function and the functions that it calls."""
    definition = concrete.graph.as_graph_def()
    library = {function.signature.name: function.node_def for function in definition.library.function}

    def walk(nodes):
        for node in nodes:
            yield node.op
            for attribute in node.attr.values():
                called = [attribute.func] if attribute.HasField("func") else attribute.list.func
                for function in called:
                    yield from walk(library[function.name])

    return Counter(walk(definition.node))


# Errors


def dense_graph(batch=2, **options):
    return Part(keras.layers.Dense(3), name="encoder").build(tf.TensorSpec([batch, 4]), **options)


def check_error(act, kind, parts) -> None:
    """Check that doing something raises an error of a kind whose message holds all parts."""
    with pytest.raises(kind) as caught:
        act()
    message = " ".join(str(caught.value).split())
    assert [part for part in parts if part not in message] == [], message
