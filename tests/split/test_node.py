"""What a node is made from, what it is called, and what is said of one that can't be."""

from __future__ import annotations

import keras
import pytest
import tensorflow as tf

import seq2split as s2s

BUCKETS = s2s.Buckets([4])


class MyEncoder(keras.Layer):
    """A layer of somebody's own."""

    def call(self, source):
        return source


class Module(tf.Module):
    """A module without a name of its own."""

    def __call__(self, source):
        return source


def encode(source):
    return source


def test_a_part_is_taken_as_it_is():
    part = s2s.Part(keras.layers.Dense(3), save="inputs", name="encoder")
    node = s2s.Node(part, "source", BUCKETS)
    assert node.part is part
    assert node.name == "encoder"


@pytest.mark.parametrize("make", [lambda: keras.layers.Dense(3), MyEncoder, Module, lambda: encode])
def test_a_part_is_made_from_a_callable(make):
    fn = make()
    node = s2s.Node(fn, "source", BUCKETS)
    assert node.part.fn is fn
    assert node.part.name == node.name


NAMES = {
    "of a layer": (lambda: keras.layers.Dense(3, name="encoder"), "encoder"),
    "of a layer, with a number": (lambda: keras.layers.Dense(3, name="encoder_2"), "encoder_2"),
    "of a part": (lambda: s2s.Part(keras.layers.Dense(3), name="encoder"), "encoder"),
    "of a part that took the layer's": (lambda: s2s.Part(keras.layers.Dense(3, name="encoder")), "encoder"),
    "of a layer's class": (lambda: keras.layers.Dense(3), "dense"),
    "of a layer's class that ends in a letter": (lambda: keras.layers.Conv1D(3, 2), "conv1d"),
    "of a model's class": (lambda: keras.Sequential([keras.layers.Dense(3)]), "sequential"),
    "of the class of a layer of one's own": (MyEncoder, "my_encoder"),
    "of the class of a layer in a part": (lambda: s2s.Part(MyEncoder()), "my_encoder"),
    "of a module": (Module, "module"),
    "of a function": (lambda: encode, "encode"),
}


@pytest.mark.parametrize("case", NAMES)
def test_default_name(case):
    """It doesn't change when the layer is made again, whose number Keras raises."""
    make, name = NAMES[case]
    assert [s2s.Node(make(), "source", BUCKETS).name for _ in range(3)] == [name] * 3


def test_a_name_may_be_chosen():
    node = s2s.Node(keras.layers.Dense(3, name="dense"), "source", BUCKETS, name="encoder")
    assert node.name == node.part.name == "encoder"


def test_reads_are_listed():
    first = s2s.Node(encode, "source", BUCKETS, name="first")
    for reads in (first, [first], (first,), iter([first])):
        assert s2s.Node(encode, reads).reads == (first,)
    for reads in ("source", ["source"]):
        assert s2s.Node(encode, reads, BUCKETS).reads == ("source",)
    assert s2s.Node(encode, [first, "target"], BUCKETS).reads == (first, "target")


def test_representation():
    first = s2s.Node(encode, "source", BUCKETS, name="first")
    last = s2s.Node(encode, [first, "target"], BUCKETS, loss=True, name="last")
    assert repr(first) == "Node('first', reads=['source'], buckets=Buckets([4]))"
    assert repr(last) == "Node('last', reads=['first', 'target'], buckets=Buckets([4]), loss=True)"


# Errors


@pytest.mark.parametrize("reads", [None, 3, [3], [["source"]], [encode], keras.layers.Dense(3)])
def test_reads_are_names_or_nodes(reads):
    with pytest.raises(TypeError, match=r"a node reads .*; expected the name of a batch field, a Node, or a sequence"):
        s2s.Node(encode, reads, BUCKETS)


def test_a_layer_that_is_read_must_be_a_node():
    with pytest.raises(TypeError, match=r"a node reads <Dense.*Wrap a layer in a Node of its own first"):
        s2s.Node(encode, [keras.layers.Dense(3), "target"], BUCKETS)


def test_what_is_not_callable_is_no_part():
    with pytest.raises(TypeError):
        s2s.Node(3, "source", BUCKETS)


@pytest.mark.parametrize("weight", ["positions", 3, 1.5])
def test_a_weight_is_rows_or_a_function(weight):
    with pytest.raises(ValueError, match=rf"weight is {weight!r}; expected 'rows', a function of the batch"):
        s2s.Node(encode, "source", BUCKETS, loss=True, weight=weight)


def test_a_weight_is_that_of_a_loss():
    with pytest.raises(ValueError, match=r"given a weight, 'rows', but holds no loss; give loss=True"):
        s2s.Node(encode, "source", BUCKETS, weight="rows")


def test_options_are_named():
    with pytest.raises(TypeError):
        s2s.Node(encode, "source", BUCKETS, True)
