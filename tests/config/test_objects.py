"""The optimizers and rules that a configuration describes."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args, get_type_hints

import keras
import pytest

from seq2split.config.objects import OPTIMIZERS, make_update_rules
from seq2split.config.settings import OptimizerConfig
from seq2split.training import UpdateRule

PARTS = ["encoder", "decoder"]
SGD = OptimizerConfig(name="sgd", learning_rate=1.0, schedule="constant", warmup_steps=0)


def test_optimizer_names_are_those_of_the_configuration():
    assert set(get_args(get_type_hints(OptimizerConfig)["name"])) == set(OPTIMIZERS)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer(name):
    settings = OptimizerConfig(name=name, learning_rate=0.5, weight_decay=0.25, schedule="linear", warmup_steps=4)
    rule, own = make_update_rules(settings, PARTS, 14)
    assert (type(rule.optimizer), rule.optimizer.weight_decay, own) == (OPTIMIZERS[name], 0.25, {})
    schedule = rule.optimizer._learning_rate
    assert [float(schedule(step)) for step in (0, 3, 9, 14)] == pytest.approx([0.125, 0.5, 0.25, 0.0])


def test_rules_of_parts_and_groups():
    """Those of parts stand before groups, which keep their order; a part may have the name of a key."""
    groups = {"b/.*": replace(SGD, frozen=True), "a/.*": SGD}
    shared, own = make_update_rules(replace(SGD, encoder=replace(SGD, every=2), groups=groups), [*PARTS, "other"], 9)
    assert list(own) == ["encoder", "b/.*", "a/.*"]
    assert (shared.every, own["encoder"].every, own["b/.*"].frozen, own["a/.*"].frozen) == (1, 2, True, False)
    assert len({id(rule.optimizer) for rule in (shared, *own.values())}) == 4


def test_a_schedule_lasts_as_long_as_its_rule():
    """Of ten steps a rule that moves in every third from the second to the eighth has three."""
    settings = replace(SGD, schedule="linear", first_step=2, last_step=8, every=3)
    rule, _ = make_update_rules(settings, PARTS, 10)
    assert rule == UpdateRule(rule.optimizer, first_step=2, last_step=8, every=3)
    assert isinstance(rule.optimizer, keras.optimizers.SGD)
    assert rule.optimizer._learning_rate.total_steps == 3
    endless, _ = make_update_rules(replace(settings, last_step=0), PARTS, 10)
    assert (endless.last_step, endless.optimizer._learning_rate.total_steps) == (None, 3)
