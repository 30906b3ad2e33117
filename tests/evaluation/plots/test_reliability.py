import numpy as np
import pytest
from matplotlib.figure import Figure

from cxrtool.evaluation.plots.curves import draw_scores
from cxrtool.evaluation.plots.reliability import IMAGES_PER_BIN, draw_reliability, merged_bins, why_no_reliability
from cxrtool.evaluation.scores import scores_of
from cxrtool.evaluation.summary import summarise


@pytest.fixture
def draw(monkeypatch, tmp_path):
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *given, **more: figures.append(figure))

    def call(predictions, **options):
        scores = scores_of(predictions)
        draw_reliability(scores, summarise(scores, resamples=20, **options), tmp_path / "one.png")
        return figures[-1]

    return call


def points(figure):
    (line,) = (line for line in figure.axes[0].lines if line.get_marker() == "o")
    return np.array(line.get_data())


def test_every_bin_has_enough_images_and_all_are_in_one():
    rng = np.random.default_rng(0)
    for predicted in (rng.random(500), rng.random(500) ** 8, np.full(70, 0.3), np.array([0.0] * 30 + [1.0] * 45)):
        bins = merged_bins(predicted, np.arange(len(predicted)))
        assert np.bincount(bins).min() >= IMAGES_PER_BIN
        order = np.argsort(predicted, kind="stable")
        assert (np.diff(bins[order]) >= 0).all()
    # Repeats of an image are one image.
    assert merged_bins(np.linspace(0, 1, 200), np.arange(200) % 10).tolist() == [0] * 200


def test_a_gap_is_not_bridged_by_a_bin():
    predicted = np.array([0.01] * 30 + [0.99] * 30)
    assert merged_bins(predicted, np.arange(60)).tolist() == [0] * 30 + [1] * 30


def test_calibrated_probabilities_are_on_the_diagonal(make_predictions, draw):
    predictions = make_predictions(4000, ("covid", "normal"))
    rng = np.random.default_rng(1)
    for i, row in enumerate(predictions.rows):
        share = rng.random()
        predictions.probabilities[i] = [share, 1 - share]
        row["label"] = "covid" if rng.random() < share else "normal"
        row["predicted"] = "covid" if share > 0.5 else "normal"
    x, y = points(draw(predictions, positive="covid"))
    assert len(x) == 10
    assert np.abs(x - y).max() < 0.1


@pytest.mark.parametrize(
    ("classes", "options", "words"),
    [
        (("covid", "normal"), {}, ("the probability of normal", "slope")),
        (("covid", "normal"), {"positive": "covid"}, ("the probability of covid", "intercept")),
        (("covid", "normal", "viral"), {}, ("the predicted class", "ECE")),
    ],
)
def test_the_title_says_what_is_shown(make_predictions, draw, classes, options, words):
    figure = draw(make_predictions(120, classes, folds=2), **options)
    title = figure.axes[0].get_title(loc="left")
    assert all(word in title for word in (*words, "120 test images from 2 runs"))


def test_few_images_have_a_sentence_instead(make_predictions, tmp_path):
    scores = scores_of(make_predictions(59))
    summary = summarise(scores, resamples=20)
    assert why_no_reliability(summary) == "No calibration plot: 59 test images are too few for 3 bins of 20."
    assert "reliability.png" not in [path.name for path in draw_scores(scores, summary, tmp_path)]
    more = scores_of(make_predictions(60))
    assert not why_no_reliability(summarise(more, resamples=20))
