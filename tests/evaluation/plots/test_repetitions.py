import json

import numpy as np
import pytest
from matplotlib.figure import Figure

from cxrtool.evaluation.plots.repetitions import average, draw, tabulate


def history(losses, scores, score="accuracy"):
    """Rows as `history.csv` has them; None was not measured."""
    return [
        {
            "epoch": str(k + 1),
            "lr": "0.1",
            "train_loss": f"{loss}",
            f"train_{score}": "0.5",
            "validation_loss": f"{loss + 1}",
            f"validation_{score}": "" if value is None else f"{value}",
        }
        for k, (loss, value) in enumerate(zip(losses, scores, strict=True))
    ]


@pytest.fixture
def found():
    return average([history([3, 2, 1], [0.5, 0.8, 0.6]), history([1, 1, 1, 0], [0.7, 0.6, 0.7, 1.0])])


def test_mean_and_spread_of_each_epoch(found):
    assert found.epochs.tolist() == [1, 2, 3, 4]
    assert found.runs.tolist() == [2, 2, 2, 1]
    assert found.mean["train_loss"].tolist() == [2, 1.5, 1, 0]
    assert found.sd["train_loss"][:3].tolist() == [2**0.5, 0.5**0.5, 0]
    assert np.isnan(found.sd["train_loss"][3])
    assert "lr" not in found.mean
    assert found.score == "accuracy"


def test_the_best_epoch_is_one_that_all_runs_reached(found):
    assert found.shared == 3
    # 0.6, 0.7, 0.65; the 1.0 of the last epoch is of one run alone.
    best = found.best("validation")
    assert (best.epoch, best.value.mean, best.value.sd) == (2, pytest.approx(0.7), pytest.approx(0.02**0.5))
    # Each run's own, wherever it is: 0.8 at epoch 2, 1.0 at epoch 4.
    assert (best.own_value.mean, best.own_value.sd) == (pytest.approx(0.9), pytest.approx(0.02**0.5))
    assert (best.own_epoch.mean, best.own_epoch.sd) == (3, pytest.approx(2**0.5))
    # The first of equal ones.
    assert (found.best("train").epoch, found.best("train").value.mean, found.best("train").value.sd) == (1, 0.5, 0)


def test_the_summary_has_both_parts_as_plain_values(found):
    assert json.loads(json.dumps(found.summary())) == found.summary()
    assert found.summary()["best"]["train"] == {
        "epoch": 1,
        "value": 0.5,
        "sd": 0.0,
        "own_value": 0.5,
        "own_value_sd": 0.0,
        "own_epoch": 1.0,
        "own_epoch_sd": 0.0,
    }
    assert list(found.summary()["best"]) == ["train", "validation"]


def test_without_validation_there_is_no_best_epoch():
    found = average([history([1, 2], [None, None])] * 2)
    assert found.best("validation") is None
    assert list(found.summary()["best"]) == ["train"]


def test_a_part_that_one_run_measured_has_no_spread():
    best = average([history([1, 2], [0.1, 0.3]), history([1, 2], [None, None])]).best("validation")
    assert (best.value.mean, best.value.sd, best.own_epoch.mean, best.own_epoch.sd) == (0.3, None, 2, None)


def test_test_images_are_drawn_and_no_best_is_sought_for_them(tmp_path, monkeypatch):
    watching = [{**row, "test_loss": "0.2", "test_accuracy": "0.9"} for row in history([1, 2], [None, None])]
    found = average([watching] * 2)
    assert list(found.summary()["best"]) == ["train"]
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *given, **more: figures.append(figure))
    draw(found, tmp_path / "one.png")
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == ["train", "validation", "test"]
    assert [line.get_linestyle() for line in figures[0].axes[1].lines if line.get_label() == "test"] == ["-."]
    assert figures[0].get_suptitle().endswith("\ntest images: for looking only, nothing is chosen by them")


def test_the_figure_prints_the_best_of_each_part(found, tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *given, **more: figures.append(figure))
    draw(found, tmp_path / "one.png")
    assert figures[0].get_suptitle().splitlines() == [
        "Mean and SD (band) of 2 runs; vertical line: epoch of the best mean accuracy",
        "training: best mean accuracy 0.500 ± 0.000 at epoch 1; best of each run 0.500 ± 0.000 at epoch 1.0 ± 0.0",
        "validation: best mean accuracy 0.700 ± 0.141 at epoch 2; best of each run 0.900 ± 0.141 at epoch 3.0 ± 1.4",
        "Dotted after epoch 3: only the runs that had not stopped",
    ]


def test_one_run_has_no_spread():
    assert average([history([1], [1])]) is None
    assert average([history([1], [1]), []]) is None


def test_other_scores_are_found(found):
    other = average([history([1, 2], [0.1, 0.2], "dice")] * 3)
    assert other.score == "dice"
    assert (other.best("validation").epoch, other.best("validation").value.mean) == (2, pytest.approx(0.2))


def test_the_table_says_the_same(found):
    columns, rows = tabulate(found)
    assert columns[:4] == ["epoch", "runs", "train_loss_mean", "train_loss_sd"]
    assert [row["runs"] for row in rows] == ["2", "2", "2", "1"]
    assert rows[0]["train_loss_sd"] == "1.41421356"
    assert rows[3]["validation_accuracy_sd"] == ""


def test_the_picture_is_the_same_every_time_and_shows_what_differs(found, tmp_path):
    for name in ("one.png", "two.png"):
        draw(found, tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    draw(average([history([3, 2, 2], [0.5, 0.8, 0.6])] * 2), tmp_path / "other.png")
    assert (tmp_path / "one.png").read_bytes() != (tmp_path / "other.png").read_bytes()


def test_one_epoch_and_many_can_be_drawn(tmp_path):
    draw(average([history([1], [1])] * 2), tmp_path / "one.png")
    many = np.linspace(1, 0.1, 200)
    draw(average([history(many, 1 - many)] * 2), tmp_path / "many.png")


@pytest.mark.parametrize(("first", "expected"), [(300, "log"), (3, "linear")])
def test_an_epoch_far_above_the_others_does_not_flatten_them(tmp_path, monkeypatch, first, expected):
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *given, **more: figures.append(figure))
    draw(average([history([first, 2, 1, 1, 1], [0.5] * 5)] * 2), tmp_path / "one.png")
    assert [axes.get_yscale() for axes in figures[0].axes] == [expected, "linear"]
    assert ("logarithmic" in figures[0].axes[0].get_ylabel()) == (expected == "log")
    assert "logarithmic" in figures[0].axes[0].get_xlabel()
