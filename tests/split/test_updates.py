"""Plain Keras optimizers move the variables of a split model as they move those of the unsplit one, step by step."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from split_dags import Embedder, encoder_bridge_decoder
from split_models import FEATURES, Reader, Tower, make_batch, randomize, sequences, split

import seq2split as s2s

STEPS = 3
PAIRS = [[(3, 3), (1, 1), (2, 1)], [(1, 2), (3, 1)], [(2, 3), (1, 1), (3, 3), (1, 2)]]


def make_layers():
    """Return an encoder and a decoder, with the same weights at every call."""
    encoder, decoder = Tower(name="encoder"), Reader(2 * FEATURES, name="decoder")
    randomize(encoder.trainable_variables + decoder.trainable_variables)
    return {"encoder": encoder, "decoder": decoder}


def variables_of(layers):
    return {name: layer.trainable_variables for name, layer in layers.items()}


def unsplit_gradients(layers, batch):
    """Return the gradients of the unsplit model by part, as an ordinary tape has them."""
    source, target = (sequences(rows) for rows in batch.values())
    values = {name: [each.value for each in variables] for name, variables in variables_of(layers).items()}
    with tf.GradientTape() as tape:
        loss = layers["decoder"](layers["encoder"](source), target).loss / target.lengths.sum()
    found = tape.gradient(loss, values)
    # Keras's optimizers square repeated rows of an embedding apart; the gradient itself is the sum of them.
    return tf.nest.map_structure(tf.convert_to_tensor, found)


def assert_equal(layers, expected):
    for left, right in zip(*(tf.nest.flatten(variables_of(each)) for each in (layers, expected)), strict=True):
        np.testing.assert_allclose(left, right, rtol=0, atol=1e-12 * np.abs(right).max(), err_msg=left.path)


def unlike(layers, before):
    """Return the parts all of whose variables have moved."""
    return {
        name
        for name, variables in variables_of(layers).items()
        if all(np.any(now != then) for now, then in zip(variables, variables_of(before)[name], strict=True))
    }


def adam():
    """Return an optimizer that sees all gradients at once, counts its steps, and keeps two slots for each variable."""
    decay = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)
    return keras.optimizers.Adam(decay, global_clipnorm=0.1)


def momentum():
    return keras.optimizers.SGD(0.1, momentum=0.9)


def one_for_all(make):
    optimizer = make()
    return optimizer, [(optimizer, ("encoder", "decoder"))]


def one_for_each(make):
    optimizers = {"encoder": make(), "decoder": momentum()}
    return optimizers, [(optimizer, (name,)) for name, optimizer in optimizers.items()]


def shared_by_two(make):
    optimizer = make()
    return {"decoder": optimizer, "encoder": optimizer}, [(optimizer, ("encoder", "decoder"))]


def one_left_out(make):
    optimizer = make()
    return {"decoder": optimizer}, [(optimizer, ("decoder",))]


@pytest.mark.parametrize("make", [adam, momentum])
@pytest.mark.parametrize("assign", [one_for_all, one_for_each, shared_by_two, one_left_out])
def test_steps_equal_those_of_the_unsplit_model(assign, make):
    """Mixed batches, sparse gradients in both models; a part left out stays."""
    layers, expected = make_layers(), make_layers()
    model = split(*layers.values())
    optimizers, _ = assign(make)
    _, references = assign(make)
    for pairs in PAIRS:
        batch = make_batch(pairs)
        _, gradients = model.loss_and_gradients(batch)
        assert isinstance(gradients["encoder"][0], tf.IndexedSlices)
        model.apply_gradients(optimizers, gradients)
        unsplit, variables = unsplit_gradients(expected, batch), variables_of(expected)
        for optimizer, parts in references:
            pairs = [pair for part in parts for pair in zip(unsplit[part], variables[part], strict=True)]
            optimizer.apply_gradients(pairs)
        assert_equal(layers, expected)
    assert unlike(layers, make_layers()) == {part for _, parts in references for part in parts}
    found = optimizers.values() if isinstance(optimizers, dict) else [optimizers]
    assert [int(optimizer.iterations) for optimizer in found] == [STEPS] * len(found)


@pytest.mark.parametrize("make", [adam, momentum])
def test_a_frozen_part_stays_and_moves_when_thawed(make):
    """Its gradients are `None`; the optimizer has slots for it from the start."""
    layers, expected = make_layers(), make_layers()
    model, optimizer, reference = split(*layers.values()), make(), make()
    reference.build([each for variables in variables_of(expected).values() for each in variables])
    for pairs, frozen in zip(PAIRS, (["encoder"], ["encoder"], []), strict=True):
        batch = make_batch(pairs)
        _, gradients = model.loss_and_gradients(batch, frozen=frozen)
        model.apply_gradients(optimizer, gradients)
        unsplit, variables = unsplit_gradients(expected, batch), variables_of(expected)
        parts = [part for part in layers if part not in frozen]
        reference.apply_gradients([pair for part in parts for pair in zip(unsplit[part], variables[part], strict=True)])
        assert_equal(layers, expected)
        assert unlike(layers, make_layers()) == {"decoder"} | set(parts)


def test_nothing_moves_where_all_is_frozen():
    layers = make_layers()
    model, optimizers = split(*layers.values()), {"encoder": momentum(), "decoder": momentum()}
    _, gradients = model.loss_and_gradients(make_batch(), frozen=["encoder", "decoder"])
    model.apply_gradients(optimizers, gradients)
    assert_equal(layers, make_layers())
    assert unlike(layers, make_layers()) == set()


def tied_model():
    """Return a model whose parts share their one variable, and the variable."""
    tied = Embedder()
    nodes = [
        s2s.Node(s2s.Part(tied.encode, variables=[tied.table], name="encoder"), "source", s2s.Buckets([3])),
        s2s.Node(
            s2s.Part(tied.decode, variables=[tied.table], name="decoder"),
            ["encoder", "target"],
            s2s.Buckets([3]),
            loss=True,
        ),
    ]
    return s2s.SplitModel(nodes), tied.table


@pytest.mark.parametrize("optimizers", [keras.optimizers.SGD, lambda rate: {"decoder": keras.optimizers.SGD(rate)}])
def test_a_shared_variable_moves_once(optimizers):
    """Tied embeddings, sparse in one part and dense in the other; also where the part with the sum is left out."""
    (model, table), optimizer = tied_model(), optimizers(0.5)
    frozen = ["encoder"] if isinstance(optimizer, dict) else []
    _, gradients = model.loss_and_gradients(make_batch(), frozen=frozen)
    (total,) = [tf.convert_to_tensor(each) for part in gradients.values() for each in part if each is not None]
    before = table.numpy()
    model.apply_gradients(optimizer, gradients)
    assert np.abs(total).max() > 1e-3
    np.testing.assert_allclose(table, before - 0.5 * total.numpy(), rtol=0, atol=1e-12)


def test_gradients_by_hand_of_a_shared_variable_are_summed():
    """Each part has its own share of them, and an optimizer with state sees their sum once."""
    (model, table), optimizer = tied_model(), keras.optimizers.Adam(0.1)
    alone, reference = tf.Variable(table.numpy()), keras.optimizers.Adam(0.1)
    rng = np.random.default_rng(3)
    for _ in range(STEPS):
        shares = [tf.constant(rng.normal(size=table.shape)) for _ in model.parts]
        model.apply_gradients(optimizer, {part: [share] for part, share in zip(model.parts, shares, strict=True)})
        reference.apply_gradients([(tf.add_n(shares), alone)])
        np.testing.assert_allclose(table, alone, rtol=0, atol=1e-12)


def test_variables_of_tensorflow_are_moved_by_optimizers_with_state():
    """Of a `tf.Module` or a function; Keras's own variables beside them."""
    case = encoder_bridge_decoder()
    model = s2s.SplitModel(case.nodes)
    batch = make_batch([(2, 1), (3, 2)])
    _, gradients = model.loss_and_gradients({"one": batch["source"], "target": batch["target"]})
    before = [each.numpy() for each in model.trainable_variables]
    model.apply_gradients(keras.optimizers.Adam(0.1), gradients)
    assert all(np.any(now != then) for now, then in zip(model.trainable_variables, before, strict=True))


# Errors


def optimizer_of(*parts):
    return {part: keras.optimizers.SGD(0.1) for part in parts}


@pytest.mark.parametrize(
    ("optimizer", "change", "message"),
    [
        (optimizer_of("encodr"), {}, r"no parts \['encodr'\] to update; the parts are \['encoder', 'decoder'\]"),
        (keras.optimizers.SGD(0.1), {"other": []}, r"there are no parts \['other'\] to update"),
        (
            optimizer_of("encoder"),
            {"encoder": None},
            r"'encoder' has 2 trainable variables, and no gradients were given",
        ),
        (keras.optimizers.SGD(0.1), {"decoder": [None]}, r"'decoder' has 2 trainable variables, and 1 gradients were"),
    ],
)
def test_names_and_numbers_must_fit(optimizer, change, message):
    layers = make_layers()
    model = split(*layers.values())
    _, gradients = model.loss_and_gradients(make_batch())
    given = {part: each for part, each in (gradients | change).items() if each is not None}
    with pytest.raises(ValueError, match=message):
        model.apply_gradients(optimizer, given)
    assert_equal(layers, make_layers())
    assert unlike(layers, make_layers()) == set()
