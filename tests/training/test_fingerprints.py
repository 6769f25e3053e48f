"""What tells the batches and the validation of a training from others."""

from __future__ import annotations

import json

import pytest
from tiny_models import make_batches, make_model, make_rows

from seq2split.corpus.batch_plan import ORDER
from seq2split.training.fingerprints import check_same, fingerprint, read_fingerprint, write_fingerprint


@pytest.fixture(scope="module")
def model():
    return make_model()


def swapped(rows):
    """Return as many rows, of which two have changed places on one side."""
    return rows | {"source": [rows["source"][1], rows["source"][0], *rows["source"][2:]]}


def with_one_changed(rows):
    return rows | {"target": [rows["target"][0] + 0, (rows["target"][1] % 6) + 1, *rows["target"][2:]]}


def without_one(rows):
    return {side: each[1:] for side, each in rows.items()}


@pytest.mark.parametrize("change", [swapped, with_one_changed, without_one])
@pytest.mark.parametrize("what", ["batches", "validation"])
def test_other_examples_are_told(model, change, what):
    """Whichever of them, and however like the others in number and length."""
    rows = make_rows()
    given = {"batches": rows, "validation": rows}
    before = fingerprint(*(make_batches(model, each) for each in given.values()))
    assert fingerprint(*(make_batches(model, each) for each in given.values())) == before
    now = fingerprint(*(make_batches(model, each) for each in (given | {what: change(rows)}).values()))
    with pytest.raises(ValueError, match=r"run holds a training on other batches \(.*changed_batches=True.*--changed"):
        check_same("run", before, now, changed=False)
    changed = check_same("run", before, now, changed=True)
    assert ("validation" in changed) == (what == "validation")
    assert ("digest" in changed) == (what == "batches")
    assert all(one != other for one, other in changed.values())


def test_what_a_function_reads(model):
    """It may tell; where it doesn't, nothing is compared."""
    batches = make_batches(model)

    class Tells:
        def __call__(self, _model):
            return 1.0

        def fingerprint(self):
            return {"digest": (1, 2)}

    found = fingerprint(batches, Tells())
    assert found["validation"] == {"digest": [1, 2]}
    for silent in (None, lambda _model: 1.0):
        now = fingerprint(batches, silent)
        assert check_same("run", found, now, changed=False) == check_same("run", now, found, changed=False) == {}


KNOWN = {"digest": "abc", "rows": 3}


@pytest.mark.parametrize(
    ("data", "stored", "found", "told"),
    [
        (json.dumps(KNOWN), KNOWN, KNOWN, ""),
        (json.dumps(KNOWN), None, KNOWN, ""),
        (None, KNOWN, KNOWN, "is lost: it is written again from the checkpoint"),
        (None, None, None, "is lost: whether the batches are those that the run was trained on, isn't known"),
        ("{", KNOWN, KNOWN, "is damaged: it is written again from the checkpoint"),
        ("[3]", KNOWN, KNOWN, "is damaged: it is written again from the checkpoint"),
        (b"\xff\x00", KNOWN, KNOWN, "is damaged: it is written again from the checkpoint"),
        ('{"rows": 4}', KNOWN, KNOWN, "was changed or damaged: it is written again from the checkpoint"),
    ],
)
def test_the_file(tmp_path, data, stored, found, told):
    path = tmp_path / "batches.json"
    if data is not None:
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
    read, lines = read_fingerprint(path, stored)
    assert read == found
    assert [line.removeprefix(f"{path} ") for line in lines] == ([told] if told else [])
    write_fingerprint(path, KNOWN)
    assert read_fingerprint(path, KNOWN) == (KNOWN, [])


def test_a_damaged_file_of_an_earlier_version(tmp_path):
    (tmp_path / "batches.json").write_text("{")
    with pytest.raises(ValueError, match=r"batches\.json is damaged: .*if you know that they are, delete it"):
        read_fingerprint(tmp_path / "batches.json", None)


def test_batches_in_the_order_of_an_earlier_version_are_others():
    """Its place in an epoch would mean other rows."""
    now = {"digest": "a", "order": 2}
    with pytest.raises(ValueError, match=r"training on other batches .*order"):
        check_same("run", {"digest": "a"}, now, changed=False)
    assert check_same("run", {"digest": "a"}, now, changed=True) == {"order": [None, 2]}


def test_batches_tell_their_order(model):
    assert fingerprint(make_batches(model), None)["order"] == ORDER
