"""The other ways to split a model by bucket: TensorFlow 2's own, the naive one, and the original recipe."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from efficiency.batches import one_row, padded
from efficiency.setting import Setting
from efficiency.subjects import Gradients, Model, Sharded, field_spec, gradients_of
from seq2split.engine.graph_function import GraphFunction
from seq2split.split.sequences import Sequences

_VIEWS = ("Identity", "IdentityN", "Reshape", "ExpandDims", "Squeeze", "StopGradient", "PreventGradient")
_NOT_COMPUTED = ("Placeholder", "Const", "ReadVariableOp", "VarHandleOp", *_VIEWS)


class Tape(Sharded):
    """One eager tape over a `tf.function` for each bucket of either part."""

    def __init__(self, setting: Setting, model: Model | None = None):
        super().__init__(setting, model, setting.by_bucket, setting.covering)
        self.functions: dict[tuple[str, int], Any] = {}
        """By part and bucket."""

    @property
    def graphs(self) -> int:
        """See the base."""
        return len(self.functions)

    def prepare(self, source: int, target: int) -> None:
        """See the base."""
        keys = {"encoder": source, "decoder": target}
        if all(key in self.functions for key in keys.items()):
            return
        specs = {"encoder": [field_spec(source)], "decoder": [self.model.boundary, field_spec(target)]}
        for name, length in keys.items():
            if (name, length) not in self.functions:
                self.functions[name, length] = _function(self.layers[name], specs[name])
        # TensorFlow makes the backward when a tape first sees the call, and the threads would each make one.
        self.run(*padded(one_row(source, target), [0], source, target), tf.ones([]))

    def run(self, source: Sequences, target: Sequences, share: tf.Tensor) -> tuple[tf.Tensor, Gradients]:
        """See the base."""
        with tf.GradientTape() as tape:
            encoded = self.functions["encoder", source.values.shape[1]](source)
            loss, _ = self.functions["decoder", target.values.shape[1]](encoded, target)
        return loss, gradients_of(tape, loss, self.variables, share)


class Passes(NamedTuple):
    """A part in one bucket.

    Attributes:
        forward: Takes inputs, and returns outputs and what `backward` must be given.
        backward: Takes that and the cotangents of the floating outputs, and returns those of the floating inputs and
            the gradients.
        fused: Takes inputs and the cotangents, and returns outputs, cotangents and gradients; in place of the others.
    """

    forward: Callable | None = None
    backward: Callable | None = None
    fused: Callable | None = None


class Apart(Sharded):
    """The base of subjects whose parts are functions of their own, forward and backward, called by hand."""

    def __init__(self, setting: Setting, model: Model | None = None):
        super().__init__(setting, model, setting.by_bucket, setting.covering)
        self.passes: dict[tuple[str, int], Passes] = {}
        """By part and bucket."""

    @property
    def graphs(self) -> int:
        """See the base."""
        return len(self.passes)

    @abstractmethod
    def trace(self, name: str, specs: list) -> Passes:
        """Trace a part for inputs of some specs."""

    def prepare(self, source: int, target: int) -> None:
        """See the base."""
        if ("encoder", source) not in self.passes:
            self.passes["encoder", source] = self.trace("encoder", [field_spec(source)])
        if ("decoder", target) not in self.passes:
            self.passes["decoder", target] = self.trace("decoder", [self.model.boundary, field_spec(target)])

    def run(self, source: Sequences, target: Sequences, share: tf.Tensor) -> tuple[tf.Tensor, Gradients]:
        """See the base."""
        encoder = self.passes["encoder", source.values.shape[1]]
        decoder = self.passes["decoder", target.values.shape[1]]
        losses_ct = [share, tf.zeros_like(share)]
        encoded, kept = encoder.forward(source)
        if decoder.fused:
            (loss, _), encoded_ct, decoder_gradients = decoder.fused(encoded, target, *losses_ct)
        else:
            (loss, _), decoder_kept = decoder.forward(encoded, target)
            encoded_ct, decoder_gradients = decoder.backward(decoder_kept, losses_ct)
        _, encoder_gradients = encoder.backward(kept, encoded_ct)
        return loss, {"encoder": encoder_gradients, "decoder": decoder_gradients}


class Rerun(Apart):
    """The naive way: a forward that keeps nothing, and a backward that is given the inputs and runs it again.

    Args:
        setting: See the base.
        model: Likewise.
        fused: Whether the decoder is spared it: one function gives its loss and its gradients.
    """

    def __init__(self, setting: Setting, model: Model | None = None, *, fused: bool = False):
        super().__init__(setting, model)
        self._fused = fused

    def trace(self, name: str, specs: list) -> Passes:
        """See the base."""
        layer, variables = self.layers[name], _values(self.variables[name])

        def both(*arguments):
            inputs, cotangents = arguments[: len(specs)], arguments[len(specs) :]
            with tf.GradientTape() as tape:
                tape.watch(_floating(inputs))
                outputs = layer(*inputs, training=True)
            return outputs, *_pull_back(tape, _floating(outputs), _floating(inputs), variables, cotangents)

        forward = _function(layer, specs)
        cotangents = [tf.TensorSpec(each.shape, each.dtype) for each in _floating(forward.structured_outputs)]
        again = tf.function(both, autograph=False).get_concrete_function(*specs, *cotangents)
        if name == "decoder" and self._fused:
            return Passes(fused=again)
        return Passes(lambda *inputs: (forward(*inputs), inputs), lambda inputs, given: again(*inputs, *given)[1:])


class CacheAll(Apart):
    """The original recipe: the forward hands every tensor that it computes to the backward."""

    def trace(self, name: str, specs: list) -> Passes:
        """See the base."""
        layer, variables, made = self.layers[name], _values(self.variables[name]), {}

        def forward(*inputs):
            with tf.GradientTape() as tape:
                tape.watch(_floating(inputs))
                outputs = layer(*inputs, training=True)
            leaves = _floating(outputs)
            every = [tensor for op in leaves[0].graph.get_operations() for tensor in op.outputs if _computed(tensor)]

            def backward(*cotangents):
                return _pull_back(tape, leaves, _floating(inputs), variables, cotangents)

            leaf_specs = [tf.TensorSpec(each.shape, each.dtype) for each in leaves]
            made["backward"] = tf.function(backward, autograph=False).get_concrete_function(*leaf_specs)
            made["captured"] = made["backward"].captured_inputs
            known = {tensor.ref() for tensor in every}
            every += [each for each in made["captured"] if tf.is_symbolic_tensor(each) and each.ref() not in known]
            made["places"] = {tensor.ref(): place for place, tensor in enumerate(every)}
            made["outputs"] = outputs
            return tf.nest.flatten(outputs) + every

        concrete = tf.function(forward, autograph=False).get_concrete_function(*specs)
        run, back = (GraphFunction(concrete, concrete.captured_inputs), GraphFunction(made["backward"], []))
        places = [made["places"].get(tensor.ref()) for tensor in made["captured"]]
        count = len(tf.nest.flatten(made["outputs"]))

        def run_forward(*inputs):
            results = run(tf.nest.flatten(inputs))
            return tf.nest.pack_sequence_as(made["outputs"], results[:count]), results[count:]

        def run_backward(kept, cotangents):
            bound = [tensor if at is None else kept[at] for at, tensor in zip(places, made["captured"], strict=True)]
            flat = back([*cotangents, *bound])
            return tf.nest.pack_sequence_as(made["backward"].structured_outputs, flat, expand_composites=True)

        return Passes(run_forward, run_backward)


def _function(layer: Callable, specs: list) -> Any:
    return tf.function(lambda *inputs: layer(*inputs, training=True), autograph=False).get_concrete_function(*specs)


def _floating(nest: Any) -> list[tf.Tensor]:
    return [leaf for leaf in tf.nest.flatten(nest) if leaf.dtype.is_floating]


def _values(variables: list) -> list[tf.Variable]:
    return [variable.value for variable in variables]


def _pull_back(tape: tf.GradientTape, outputs: list, inputs: list, variables: list, cotangents: tuple) -> tuple:
    """The cotangents of inputs, and gradients."""
    found = tape.gradient(outputs, inputs + variables, output_gradients=list(cotangents))
    return found[: len(inputs)], found[len(inputs) :]


def _computed(tensor: tf.Tensor) -> bool:
    """Whether an operation computes a tensor of numbers, and does not only hold, show or read another, or its shape."""
    return tensor.op.type not in _NOT_COMPUTED and (tensor.dtype.is_floating or tensor.dtype.is_bool)
