"""Validation: its figures against sacreBLEU and the model as a whole, whatever the configuration says of searching."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sacrebleu
from corpora import configure, write_experiment

from seq2split.config.settings import SearchConfig
from seq2split.translation.experiment import Experiment


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    """One whose validation corpus makes several batches of different sizes."""
    folder = tmp_path_factory.mktemp("experiment")
    overrides = {"search__beam": 3, "search__coverage": 0.5, "search__min_length_ratio": 2, "batches__tokens": 24}
    return Experiment(configure(write_experiment(folder), **overrides), folder / "run")


def test_figures(experiment, monkeypatch):
    translator, validation = experiment.translator, experiment.validation
    references = validation._lines["target"]
    translations = [references[0], *references[:-1]]
    asked = []

    def translate(*sources, **options):
        asked.append((sources, options["settings"]))
        return translations, None

    monkeypatch.setattr(translator, "translate", translate)
    found = validation(translator.model)
    assert asked == [((validation._lines["source"],), SearchConfig(beam=1))]
    assert found["bleu"] == pytest.approx(sacrebleu.corpus_bleu(translations, [references]).score)
    assert 0 < found["bleu"] < 100
    batches = validation._loss._batches
    assert len({len(batch["source"].lengths) for batch in batches}) > 1
    expected = translator.model.losses(batches.corpus.fields)
    np.testing.assert_allclose(found["loss"], expected.metrics["nll"], rtol=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(found["loss"]))
    assert list(found) == ["loss", "perplexity", "bleu"]
