"""What decides how a training goes on, and what a run directory holds, to be compared."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from seq2split.runs.history import read_history


def parts_state(model):
    """Return the values of all variables of a model's parts, by name."""
    return {
        f"{name} {place} {one.name}": one.numpy()
        for name, part in model.parts.items()
        for place, one in enumerate(part.part.variables)
    }


def state(trainer):
    """Return everything that decides how a training goes on, by name."""
    found = {f"moving {place}": value for place, value in enumerate(trainer._moving.values)}
    for name, optimizer in trainer._updater.optimizers.items():
        found |= {f"optimizer {name} {place}": one for place, one in enumerate(optimizer.variables)}
    for name in ("step", "epoch", "index", "tokens", "best", "best_step", "stale"):
        found[f"progress {name}"] = getattr(trainer.progress, name)
    return {name: value.numpy() for name, value in found.items()} | parts_state(trainer.model)


def assert_same_state(found, expected):
    """Fail unless two states are the same, bit for bit."""
    assert found.keys() == expected.keys()
    assert not [name for name in expected if not np.array_equal(found[name], expected[name])]


def measured(entries):
    """Return what a run measured that must be the same when it runs again."""
    clock = ("seconds", "tokens_per_second")
    return [{name: value for name, value in entry.items() if name not in clock} for entry in entries]


def measured_in(run):
    """Return what stands in the history of a run directory, without the times."""
    return measured(read_history(run / "history.jsonl"))


def contents(folder):
    """Return the bytes of all files of a folder by their path."""
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _values(run):
    paths = sorted(map(str, (run / "events").glob("events.*")))
    for record in tf.data.TFRecordDataset(paths).as_numpy_iterator():
        event = tf.compat.v1.Event.FromString(record)
        for value in event.summary.value:
            yield event.step, value


def scalars(run):
    """Return the scalars of the event files: `{name: {step: value}}`."""
    found = {}
    for step, value in _values(run):
        if value.metadata.plugin_data.plugin_name == "scalars" or value.tag in found:
            found.setdefault(value.tag, {})[step] = float(tf.make_ndarray(value.tensor))
    return found


def texts(run, name):
    """Return the texts of one name in the event files."""
    return [tf.make_ndarray(value.tensor).item().decode() for _, value in _values(run) if value.tag == name]
