"""The nest of tensor specs at one side of a part graph: flattens, checks and packs what crosses it.

TensorFlow's own checks speak of flat argument numbers; these name the leaf, what was given, what was expected, and the
mend.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

Nest = Any


class Signature:
    """A nest of `tf.TensorSpec`, with `None` where a part returns nothing.

    Args:
        structure: The nest.
        owner: Who errors speak of, such as `part 'encoder'`.
        role: What a leaf is: `argument` (then `structure` is a tuple of arguments) or `output`.

    Attributes:
        structure: The nest.
        owner: Who errors speak of.
        role: What a leaf is.
        specs: The specs in order, without the `None`s of the nest.

    Raises:
        TypeError: A leaf is neither a `tf.TensorSpec` nor `None`.
    """

    def __init__(self, structure: Nest, owner: str, role: str):
        self.structure, self.owner, self.role = structure, owner, role
        self._leaves = tf.nest.flatten(structure)
        self._paths = leaf_paths(structure, role)
        for leaf, path in zip(self._leaves, self._paths, strict=True):
            if not (isinstance(leaf, tf.TensorSpec) or (leaf is None and role == "output")):
                raise TypeError(
                    f"{owner}: {path} is described by {leaf!r}; a tf.TensorSpec was expected. Ragged and sparse "
                    "tensors cross as their dense components."
                )
        self.specs: list[tf.TensorSpec] = [leaf for leaf in self._leaves if leaf is not None]
        self._spec_paths = [path for leaf, path in zip(self._leaves, self._paths, strict=True) if leaf is not None]

    def flatten(self, values: Nest) -> list[tf.Tensor]:
        """Check a nest of values against the specs and return its tensors in order."""
        self._check_nest(values, "values")
        checked = zip(tf.nest.flatten(values), self.specs, self._spec_paths, strict=True)
        return [self._checked(value, spec, path) for value, spec, path in checked]

    def pack(self, flat: list) -> Nest:
        """Put one entry for each spec into the nest."""
        entries = iter(flat)
        leaves = [None if leaf is None else next(entries) for leaf in self._leaves]
        return tf.nest.pack_sequence_as(self.structure, leaves)

    def cotangents(self, values: Nest, shapes: list[tf.TensorShape]) -> list[tf.Tensor]:
        """Check a nest of cotangents and return one tensor for each differentiable leaf.

        Args:
            values: A nest like `structure`; `None` stands for zeros.
            shapes: The shape of each spec's tensor as it was in the forward.
        """
        self._check_nest(values, "cotangents")
        given = [value for value, leaf in zip(tf.nest.flatten(values), self._leaves, strict=True) if leaf is not None]
        flat = []
        for value, spec, path, shape in zip(given, self.specs, self._spec_paths, shapes, strict=True):
            if differentiable(spec):
                exact = tf.TensorSpec(shape, spec.dtype)
                what = f"the cotangent of {path}"
                flat.append(self._zeros(exact, what) if value is None else self._checked(value, exact, what))
        return flat

    def _zeros(self, spec: tf.TensorSpec, what: str) -> tf.Tensor:
        if not spec.shape.is_fully_defined():
            raise ValueError(
                f"{self.owner}: {what} is None, which stands for zeros, but its shape {_dimensions(spec.shape)} is not "
                "known: give the zeros."
            )
        return tf.zeros(spec.shape, spec.dtype)

    def _check_nest(self, values: Nest, what: str) -> None:
        # Not tf.nest.assert_same_structure: where it lets a list stand for a tuple, it also lets any keys stand.
        if leaf_paths(values, self.role) != self._paths:
            raise ValueError(
                f"{self.owner}: the {what} for its {self.role}s have the nest {describe(values)}; expected "
                f"{describe(self.structure)}. Give one entry for each {self.role}, in the same nest; a Python list is "
                "a nest, not an array."
            )

    def _checked(self, value: Any, spec: tf.TensorSpec, path: str) -> tf.Tensor:
        dtype = getattr(value, "dtype", spec.dtype)
        if dtype != spec.dtype:
            raise ValueError(
                f"{self.owner}: {path} has dtype {tf.as_dtype(dtype).name}; expected {spec.dtype.name}. Convert it, "
                f"for example with tf.cast(x, tf.{spec.dtype.name})."
            )
        try:
            tensor = value if isinstance(value, tf.Tensor) else tf.convert_to_tensor(value, spec.dtype)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{self.owner}: {path} is {value!r}; expected a tensor or an array of {spec.dtype.name}."
            ) from error
        if not spec.shape.is_compatible_with(tensor.shape):
            raise ValueError(
                f"{self.owner}: {path} has shape {_dimensions(tensor.shape)}; expected {_dimensions(spec.shape)}. Pad "
                "it to that shape, or build a graph for the new one with part.build(...)."
            )
        return tensor


def tensor_spec(tensor: tf.Tensor) -> tf.TensorSpec:
    """Return the shape and dtype of a tensor."""
    return tf.TensorSpec(tensor.shape, tensor.dtype)


def differentiable(tensor: Any) -> bool:
    """True if gradients flow through tensors of this dtype."""
    return tensor.dtype.is_floating or tensor.dtype.is_complex


def describe(structure: Nest) -> str:
    """Return a nest of specs or tensors as a short text, such as `(int32[64, 16], float32[64])`."""
    return str(tf.nest.map_structure(_Described, structure))


def leaf_paths(structure: Nest, root: str) -> list[str]:
    """Return the path of each leaf in the order of `tf.nest.flatten`, such as `output['scores'][0]`."""
    return [root + path for path in _paths(structure)]


class _Described:
    """Prints a leaf without quotes inside the text of a nest."""

    def __init__(self, leaf: Any):
        self._leaf = leaf

    def __repr__(self) -> str:
        if hasattr(self._leaf, "dtype") and hasattr(self._leaf, "shape"):
            return f"{tf.as_dtype(self._leaf.dtype).name}{_dimensions(self._leaf.shape)}"
        return repr(self._leaf)


def _dimensions(shape: Any) -> str:
    shape = tf.TensorShape(shape)
    return "[...]" if shape.rank is None else str(shape.as_list())


def _paths(structure: Nest) -> Iterator[str]:
    if isinstance(structure, Mapping):
        children = ((f"[{key!r}]", structure[key]) for key in sorted(structure))
    elif hasattr(structure, "_fields"):
        children = ((f".{name}", getattr(structure, name)) for name in structure._fields)
    elif isinstance(structure, list | tuple):
        children = ((f"[{index}]", child) for index, child in enumerate(structure))
    else:
        yield ""
        return
    for step, child in children:
        yield from (step + rest for rest in _paths(child))
