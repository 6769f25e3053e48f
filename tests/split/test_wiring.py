"""How nodes are wired, and what is said of nodes that can't be."""

from __future__ import annotations

import keras
import pytest
import tensorflow as tf

import seq2split as s2s
from seq2split.split.wiring import Wiring

SHORT = s2s.Buckets([2])


def node(name, reads, buckets=None, **options):
    return s2s.Node(lambda *args: args[0], reads, buckets, name=name, **options)


FIRST = node("first", "one", SHORT)
LAST = node("last", ["first", "target"], SHORT, loss=True)


def test_reads_are_names_nodes_or_both():
    """However what is read is said, the wiring is the same."""
    first, second = node("first", "one", SHORT), node("second", ["two"], SHORT)
    for reads in (["first", "second", "target"], [first, second, "target"], (first, "second", "target")):
        wiring = Wiring([first, second, node("last", reads, SHORT, loss=True)])
        assert {name: part.reads for name, part in wiring.parts.items()} == {
            "first": ("one",),
            "second": ("two",),
            "last": ("first", "second", "target"),
        }
        assert wiring.fields == {"first": "one", "second": "two", "last": "target"}
        assert wiring.parts_read("last") == ["first", "second"]
        assert wiring.consumers("second") == [("last", 1)]
        assert wiring.upstream("second") == ["second"]
        assert wiring.upstream("last") == ["first", "second", "last"]
        assert (wiring.losses, wiring.inner) == (["last"], ["first", "second"])


def test_one_node_may_be_read_alone_and_twice():
    first = node("first", "one", SHORT)
    middle = node("middle", first)
    wiring = Wiring([first, middle, node("last", [middle, first, "middle", "target"], SHORT, loss=True)])
    assert wiring.parts["middle"].reads == ("first",)
    assert wiring.consumers("middle") == [("last", 0), ("last", 2)]
    assert wiring.roots == {"first": "first", "middle": "first", "last": "last"}
    assert wiring.lengths("middle") == (2,)


def dense_nodes(count):
    """Return nodes of nameless Keras layers, as a notebook's cell makes them, and one with a loss."""
    encoders = [s2s.Node(keras.layers.Dense(3), f"field{at}", SHORT) for at in range(count)]
    return [*encoders, s2s.Node(keras.layers.Dense(1), [*encoders, "target"], SHORT, loss=True, name="decoder")]


def test_default_names_are_stable():
    """Keras numbers its layers for as long as the process runs; the names of parts don't follow."""
    for _ in range(2):
        assert list(Wiring(dense_nodes(1)).parts) == ["dense", "decoder"]


@pytest.mark.parametrize("name", [None, "dense"])
def test_names_that_meet_are_an_error(name):
    """Numbered by anybody but the user, `reads="encoder_2"` could mean another layer than the one of that name."""
    nodes = [
        s2s.Node(keras.layers.Dense(3), field, SHORT, name=given) for field, given in (("one", None), ("two", name))
    ]
    last = node("last", [*nodes, "target"], SHORT, loss=True)
    with pytest.raises(ValueError, match=r"\['dense', 'dense', 'last'\].*a name of its own: Node\(..., name=...\)"):
        Wiring([*nodes, last])


def test_a_node_of_another_model_is_not_taken_for_one_of_the_same_name():
    other = node("first", "one", SHORT)
    with pytest.raises(
        ValueError, match=r"reads the node 'first', which is not among.*\['first', 'last'\]. Give it too"
    ):
        Wiring([FIRST, node("last", [other, "target"], SHORT, loss=True)])


WIRINGS = {
    "two fields": ([node("first", ["one", "two"], SHORT), LAST], r"'first' reads \['one', 'two'\].*at most one field"),
    "no buckets": (
        [node("first", ["one"]), LAST],
        r"'first' reads.*\['one'\] are batch fields, and its buckets are None",
    ),
    "buckets alone": ([FIRST, node("last", ["first"], SHORT, loss=True)], r"has buckets if it reads one"),
    "later part": (
        [node("middle", ["first"]), FIRST, node("last", ["middle", "first", "target"], SHORT, loss=True)],
        r"part 'middle' reads \['first'\].*stand before it: \[\]",
    ),
    "itself": (
        [node("first", ["first"], SHORT), LAST],
        r"part 'first' reads 'first', which is its own name.*Rename the field, or give Node\(..., name=...\)",
    ),
    "nothing": ([node("first", []), LAST], r"part 'first' reads nothing"),
    "unread": (
        [FIRST, node("other", ["first"]), LAST],
        r"no part reads the outputs of 'other', and it holds no loss.*give Node\(..., loss=True\)",
    ),
    "no loss": (
        [FIRST, node("last", ["first", "target"], SHORT)],
        r"no part reads the outputs of 'last', and it holds no loss.*give Node\(..., loss=True\)",
    ),
    "a loss that is read": (
        [node("first", "one", SHORT, loss=True), LAST],
        r"'first' holds a loss, but 'last' reads it; a loss crosses to no other part",
    ),
    "a loss without a field": (
        [FIRST, node("last", ["first"], loss=True)],
        r"'last' holds a loss but reads no batch field.*give Node\(..., weight=...\)",
    ),
    "one chosen name twice": (
        [FIRST, node("first", ["two"], SHORT), LAST],
        r"\['first', 'first', 'last'\]; expected.*a name of its own: Node\(..., name=...\)",
    ),
    "one node twice": ([FIRST, FIRST, LAST], r"a name of its own"),
    "no parts": ([], r"the names \[\]; expected at least one"),
}


@pytest.mark.parametrize("wiring", WIRINGS)
def test_wiring_errors(wiring):
    nodes, message = WIRINGS[wiring]
    with pytest.raises(ValueError, match=message):
        s2s.SplitModel(nodes)


@pytest.mark.parametrize(
    ("field", "message"), [("first", "the name of a part"), ("three", "a field that no part reads")]
)
def test_described_fields_are_read_by_a_part(field, message):
    described = {field: tf.TensorSpec([3], tf.float32)}
    with pytest.raises(ValueError, match=rf"describes '{field}', which is {message}.*\['one', 'target'\]"):
        s2s.SplitModel([FIRST, LAST], fields=described)


def test_a_loss_without_a_field_needs_a_weight():
    wiring = Wiring([FIRST, node("last", "first", loss=True, weight="rows")])
    assert (wiring.losses, wiring.roots["last"]) == (["last"], "first")


def test_unknown_names_are_told_with_the_known_ones():
    wiring = Wiring([FIRST, LAST])
    wiring.check_names(["last", "first"], "to freeze")
    with pytest.raises(ValueError, match=r"no parts \['frist'\] to freeze; the parts are \['first', 'last'\]"):
        wiring.check_names(["frist", "last"], "to freeze")
