"""How far a run is: what is judged the best, and what is counted."""

from __future__ import annotations

import math

from seq2split.runs.progress import Progress


def test_the_best_is_strictly_better():
    progress = Progress()
    assert [progress.judge(figure) for figure in (-3.0, -3.0, -2.0, math.nan)] == [True, False, True, False]
    assert int(progress.stale) == 1
    assert float(progress.best) == -2.0
    assert not progress.judge(math.inf)


def test_a_lost_best_is_forgotten():
    progress = Progress()
    progress.step.assign(3)
    progress.judge(5.0)
    progress.forget_best()
    assert int(progress.best_step) == 0
    assert progress.judge(-9.0)


def test_advance():
    progress = Progress()
    for index in (1, 2):
        progress.advance(epoch=4, index=index, tokens=10, seconds=0.5)
    assert (int(progress.tokens), float(progress.seconds)) == (20, 1.0)
    assert str(progress) == "2 steps are done, next is batch 3 of epoch 5"
