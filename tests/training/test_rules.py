"""Which rule holds for which variable, and what is no rule. In which steps they move is shown by the updater."""

from __future__ import annotations

import keras
import pytest

from seq2split.training import UpdateRule
from seq2split.training.rules import SHARED, make_rules, rule_of

PARTS = ["encoder", "decoder"]


def make_variable(path):
    *scopes, name = path.split("/")
    with keras.name_scope("/".join(scopes)):
        return keras.Variable([1.0], name=name)


def test_plain_optimizers_become_rules():
    adam, sgd = keras.optimizers.Adam(), keras.optimizers.SGD()
    assert make_rules(adam, None, PARTS) == {SHARED: UpdateRule(adam)}
    own = UpdateRule(sgd, every=2)
    rules = make_rules({"encoder": adam}, {".*/kernel": own}, PARTS)
    assert rules == {SHARED: UpdateRule(None), "encoder": UpdateRule(adam), ".*/kernel": own}


@pytest.mark.parametrize(
    ("path", "part", "expected"),
    [
        ("encoder/kernel", "encoder", ".*/kernel"),
        ("encoder/bias", "encoder", "encoder"),
        ("decoder/bias", "decoder", SHARED),
        ("decoder/kernel_2", "decoder", SHARED),
    ],
)
def test_the_rule_of_a_variable(path, part, expected):
    """A group by expression comes before the part's, wherever it stands; it must match the whole path."""
    rules = make_rules(keras.optimizers.SGD(), {"encoder": None, ".*/kernel": None}, PARTS)
    assert rule_of(make_variable(path), part, rules, PARTS) == expected


def test_a_part_may_have_the_name_of_the_shared_rule():
    with pytest.raises(ValueError, match="'shared'"):
        make_rules({"shared": keras.optimizers.SGD()}, None, ["shared", "decoder"])


def test_no_such_part():
    with pytest.raises(ValueError, match=r"no parts \['encodr'\] to give an optimizer; the parts are \['encoder', "):
        make_rules({"encodr": keras.optimizers.SGD()}, None, PARTS)


def test_a_malformed_expression():
    with pytest.raises(ValueError, match=r"group 'encoder/\(' is no regular expression"):
        make_rules(keras.optimizers.SGD(), {"encoder/(": None}, PARTS)


@pytest.mark.parametrize("wrong", ["adam", 0.1, keras.optimizers.Adam], ids=str)
def test_what_is_no_optimizer(wrong):
    with pytest.raises(TypeError, match=r"as its optimizer; expected a Keras optimizer, such as"):
        make_rules(wrong, None, PARTS)


def test_no_scaled_losses():
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())
    with pytest.raises(ValueError, match=r"LossScaleOptimizer.* needs a scaled loss.*mixed_bfloat16"):
        make_rules(optimizer, None, PARTS)


@pytest.mark.parametrize("steps", [{"first_step": 0}, {"every": 0}], ids=str)
def test_steps_begin_at_one(steps):
    with pytest.raises(ValueError, match="expected 1 or more of each"):
        UpdateRule(None, **steps)


def test_averages_that_nobody_would_put_into_the_model_are_refused():
    with pytest.raises(ValueError, match=r"use_ema=True.*Trainer\(..., ema=...\)"):
        UpdateRule(keras.optimizers.SGD(use_ema=True))
    UpdateRule(keras.optimizers.SGD(use_ema=True, ema_overwrite_frequency=2))


def test_a_group_matches_from_the_part_on():
    """Keras numbers the layers of a process: the second model of a notebook has other paths."""
    for _ in range(2):
        layer = keras.layers.Dense(3)
        layer.build((None, 2))
        rules = make_rules(keras.optimizers.SGD(), {"encoder/kernel": None}, PARTS)
        assert [rule_of(each, "encoder", rules, PARTS) for each in layer.variables] == ["encoder/kernel", "shared"]
