"""Validation: its figures against sacreBLEU and the model as a whole, whatever the configuration says of searching."""

from __future__ import annotations

import numpy as np
import pytest
import sacrebleu
from corpora import configure, write_experiment
from split_models import figures

from seq2split.search import SearchOptions
from seq2split.training.trainer import Trainer


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    """One whose validation corpus makes several batches of different sizes."""
    folder = tmp_path_factory.mktemp("experiment")
    overrides = {"search__beam": 3, "search__coverage": 0.5, "search__min_length_ratio": 2, "batches__tokens": 20}
    return Trainer(configure(write_experiment(folder), **overrides), folder / "run")


def test_figures(trainer, monkeypatch):
    translator, validation = trainer.translator, trainer._validation
    references = validation._lines["target"]
    translations = [references[0], *references[:-1]]
    asked = []

    def translate(*sources, **options):
        asked.append((sources, options["search"]))
        return translations, None

    monkeypatch.setattr(translator, "translate", translate)
    found = validation.run()
    assert asked == [((validation._lines["source"],), SearchOptions(beam=1))]
    assert found.bleu == pytest.approx(sacrebleu.corpus_bleu(translations, [references]).score)
    assert 0 < found.bleu < 100
    assert len({len(rows) for rows in validation._plan.epoch(0)}) > 1
    _, nll = figures(translator.model.losses(validation._corpus.sides))
    np.testing.assert_allclose(found.loss, nll, rtol=1e-5)
