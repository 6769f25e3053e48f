"""What the protocols ask for: the ready decoders have it, and what is missing in another is named."""

from __future__ import annotations

import inspect

import pytest

from seq2split import Sequences
from seq2split.models import (
    AttentiveDecoder,
    Encoded,
    RecurrentDecoder,
    StepDecoder,
    TransformerDecoder,
    attended_positions,
    require,
)

OUTPUTS = Sequences("values", "lengths")


@pytest.mark.parametrize("model", [RecurrentDecoder, TransformerDecoder])
@pytest.mark.parametrize("protocol", [StepDecoder, AttentiveDecoder])
def test_ready_decoders_meet_the_protocols(model, protocol):
    for name, method in inspect.getmembers(protocol, inspect.isfunction):
        if not name.startswith("_"):
            expected, found = (list(inspect.signature(each).parameters) for each in (method, getattr(model, name)))
            assert found == expected


def test_what_is_missing_is_named():
    class Bare:
        def step(self):
            pass

    require(Bare(), "step", "a search")
    with pytest.raises(
        ValueError, match=r"a search needs start of the decoder, but Bare has no start; .*models\.proto"
    ):
        require(Bare(), "start", "a search")


@pytest.mark.parametrize(
    "encoded",
    [
        OUTPUTS,
        Encoded(OUTPUTS, "summary"),
        ("summary", OUTPUTS, Sequences("others", "lengths")),
        {"summary": 1, "outputs": [OUTPUTS]},
    ],
)
def test_attended_positions(encoded):
    assert attended_positions(encoded) is OUTPUTS


def test_no_positions_to_attend_to():
    with pytest.raises(ValueError, match=r"it returned tuple without any Sequences; wrap"):
        attended_positions(("summary",))
