"""Pictures of runs: what is drawn where."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("matplotlib")
from matplotlib.figure import Figure

from seq2split.translation.alignment import Alignment
from seq2split.translation.plots import plot_alignment, plot_curves


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved."""
    found, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *to, **how: (found.append(figure), save(figure, *to, **how)))
    return found


def history(steps, seconds, tokens):
    entries = []
    for step in range(1, steps + 1):
        at = {"step": step, "seconds": seconds * step, "tokens": tokens * step}
        entries += [at | {"nll": 5 / step}, at | {"validation_loss": 4 / step, "validation_bleu": 10.0 + step % 3}]
    return entries


def points(line):
    return np.transpose([line.get_xdata(), line.get_ydata()])


def test_curves(drawn, tmp_path):
    runs = {"long": history(4, 60, 500_000), "short": history(2, 30, 500_000)}
    plot_curves(runs, tmp_path / "curves.png")
    (figure,) = drawn
    (loss_by_time, loss_by_tokens), (bleu_by_time, bleu_by_tokens) = np.reshape(figure.axes, [2, 2])
    assert bleu_by_time.get_xlabel().endswith("minutes")
    assert bleu_by_tokens.get_xlabel().endswith("million tokens")
    training, validation, *_ = loss_by_time.get_lines()
    np.testing.assert_allclose(points(training), [[step, 5 / step] for step in (1, 2, 3, 4)])
    np.testing.assert_allclose(points(validation), [[step, 4 / step] for step in (1, 2, 3, 4)])
    np.testing.assert_allclose(points(loss_by_tokens.get_lines()[3]), [[0.5, 4], [1, 2]])
    np.testing.assert_allclose(points(bleu_by_time.get_lines()[1]), [[0.5, 11], [1, 12]])
    np.testing.assert_allclose(points(bleu_by_tokens.get_lines()[0]), [[0.5, 11], [1, 12], [1.5, 10], [2, 11]])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["long: best BLEU 12.0", "short: best BLEU 12.0"]
    colours = [line.get_color() for line in legend.get_lines()]
    assert colours == [line.get_color() for line in bleu_by_time.get_lines()]
    assert len(set(colours)) == 2


@pytest.mark.parametrize(("width", "columns"), [(5, 3), (30, 2), (60, 1)])
def test_the_legend_fits(width, columns, drawn, tmp_path):
    plot_curves({f"{'run':_>{width}}{at}": history(2, 30, 500) for at in range(6)}, tmp_path / "curves.png")
    (figure,) = drawn
    (legend,) = figure.legends
    assert legend._ncols == columns
    assert 0 <= legend.get_window_extent().x0 < legend.get_window_extent().x1 <= figure.bbox.width


def test_a_run_without_validations(drawn, tmp_path):
    plot_curves({"young": [{"step": 1, "seconds": 0.5, "tokens": 10, "nll": 2.0}]}, tmp_path / "curves.png")
    assert drawn[0].legends[0].get_texts()[0].get_text() == "young"
    assert drawn[0].axes[2].get_xlabel().endswith("seconds")


@pytest.mark.parametrize("loss", [0.0, -1.0, float("nan"), float("inf")])
def test_losses_that_have_no_logarithm(drawn, tmp_path, loss):
    plot_curves({"odd": [{"step": 1, "seconds": 0.5, "tokens": 10, "nll": loss}]}, tmp_path / "curves.png")
    assert drawn[0].axes[0].get_yscale() == "linear"


def test_alignment(drawn, tmp_path):
    """A panel for each source; the target's pieces stand beside the first."""
    weights = [np.array([[0.75, 0.25], [0.5, 0.5], [0.4, 0.6]]), np.full([3, 1], 0.9)]
    plot_alignment(Alignment([["a", "b"], ["c"]], ["x", "y", "z"], weights), tmp_path / "map.png")
    *panels, _ = drawn[0].axes
    for panel, pieces, expected in zip(panels, (["a", "b"], ["c"]), weights, strict=True):
        assert [label.get_text() for label in panel.get_xticklabels()] == pieces
        np.testing.assert_array_equal(panel.images[0].get_array(), expected)
        assert panel.images[0].get_clim() == (0, 1)
    assert [label.get_text() for label in panels[0].get_yticklabels()] == ["x", "y", "z"]
    assert panels[0].get_ylim() == (2.5, -0.5), "the first piece stands above"


@pytest.mark.parametrize("lacking", [{"tokens": None}, {"seconds": float("nan")}, {"seconds": -1.0}], ids=str)
def test_an_entry_without_a_place(tmp_path, lacking):
    entries = history(2, 60, 500)
    entries[1] = {key: value for key, value in (entries[1] | lacking).items() if value is not None}
    (key,) = lacking
    with pytest.raises(ValueError, match=rf"entry 2 of the history of run mine, of step 1, has no {key} to draw it at"):
        plot_curves({"mine": entries}, tmp_path / "curves.png")


def test_a_picture_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "curves.png"
    path.write_bytes(b"old")

    def fail(figure, file, **options):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(KeyboardInterrupt):
        plot_curves({"mine": history(2, 60, 500)}, path)
    assert [each.read_bytes() for each in tmp_path.iterdir()] == [b"old"]


def test_dollars_are_no_formulas(drawn, tmp_path):
    plot_curves({"$\\x$": history(2, 60, 500)}, tmp_path / "curves.svg")
    assert "<!-- $\\x$: best BLEU" in (tmp_path / "curves.svg").read_text()
    plot_alignment(Alignment([["$$"]], ["$\\x$"], [np.ones([1, 1])]), tmp_path / "map.svg")
    assert "<!-- $\\x$ -->" in (tmp_path / "map.svg").read_text()
