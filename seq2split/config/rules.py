"""The rules that hold between keys of a configuration."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """A condition on several keys.

    Attributes:
        keys: The dotted keys.
        holds: A function of their values, in order: True if the rule holds.
        expected: The expectation, as messages write it.
    """

    keys: tuple[str, ...]
    holds: Callable[..., bool]
    expected: str


def _as_many(source: str, target: str) -> Rule:
    expected = "as many source as target files: they are read in parallel"
    return Rule((source, target), lambda sources, targets: len(sources) == len(targets), expected)


def _as_many_if_any(source2: str, target: str) -> Rule:
    expected = "no second source, or as many of its files as target files: they are read in parallel"
    return Rule((source2, target), lambda sources, targets: len(sources) in (0, len(targets)), expected)


def _not_joint(model: str) -> Rule:
    return Rule(
        ("vocabulary.joint", f"vocabulary.{model}"),
        lambda joint, path: not (joint and path),
        f"no {model}: when joint, source_model alone names the joint model; or set joint = false",
    )


RULES = (
    _as_many("data.train_source", "data.train_target"),
    _as_many("data.valid_source", "data.valid_target"),
    _as_many_if_any("data.train_source2", "data.train_target"),
    _as_many_if_any("data.valid_source2", "data.valid_target"),
    Rule(
        ("data.train_source2", "data.valid_source2"),
        lambda train, valid: bool(train) == bool(valid),
        "a second source in both corpora or in neither",
    ),
    _not_joint("source2_model"),
    _not_joint("target_model"),
    Rule(
        ("model.tied_embeddings", "model.embedding", "model.units"),
        lambda tied, embedding, units: not tied or embedding == units,
        "embedding equal to units: tied, the target embedding is the output projection; or set tied_embeddings = false",
    ),
    Rule(
        ("model.architecture", "model.embedding", "model.units"),
        lambda architecture, embedding, units: architecture != "transformer" or embedding == units,
        "embedding equal to units: a Transformer adds its layers' outputs to the embeddings",
    ),
    Rule(
        ("model.architecture", "model.units", "model.heads"),
        lambda architecture, units, heads: architecture != "transformer" or units % heads == 0,
        "units that can be divided among the heads",
    ),
    Rule(
        ("model.shared_embeddings", "vocabulary.joint"),
        lambda shared, joint: joint or not shared,
        "a joint vocabulary where the sides share their embeddings; or set shared_embeddings = false",
    ),
    Rule(
        ("search.min_length_ratio", "search.max_length_ratio"),
        lambda least, most: not most or least <= most,
        "no minimum above the maximum: lower min_length_ratio, or set max_length_ratio = 0 for no maximum",
    ),
)
