import cv2
import numpy as np
import pytest

from cxrtool.evaluation.groups import parse_groupings
from cxrtool.evaluation.plots.curves import RUN_COLOURS, draw_confusion, draw_roc, draw_scores
from cxrtool.evaluation.scores import scores_of
from cxrtool.evaluation.summary import summarise, summarise_counts


def draw(predictions, folder, by="severity,age:0,40", **options):
    scores = scores_of(predictions)
    summary = summarise(scores, by=parse_groupings(by), resamples=30, **options)
    return draw_scores(scores, summary, folder)


@pytest.mark.parametrize("options", [{}, {"repeats": 2, "folds": 3}])
@pytest.mark.parametrize("classes", [("covid", "normal"), ("covid", "normal", "pneumonia", "viral")])
def test_every_picture_is_drawn(make_predictions, tmp_path, classes, options):
    files = draw(make_predictions(240, classes, **options), tmp_path)
    assert [path.name for path in files] == [
        "roc.png",
        "precision_recall.png",
        "reliability.png",
        "confusion.png",
        "by_severity.png",
        "by_age.png",
    ]
    for path in files:
        picture = cv2.imread(str(path))
        assert min(picture.shape[:2]) > 250
        assert max(picture.shape[:2]) < 2400
        assert picture.std() > 5


def test_the_same_data_gives_the_same_bytes(make_predictions, tmp_path):
    contents = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        files = draw(make_predictions(60, folds=2), tmp_path / name, "source")
        contents.append([path.read_bytes() for path in files])
    assert contents[0] == contents[1]
    assert not any(b"Software" in content or b"tIME" in content for content in contents[0])


def test_names_are_text_whatever_they_hold(make_predictions, tmp_path):
    predictions = make_predictions(classes=(r"$\alpha", "a class with a very long name indeed, and then some"))
    for row in predictions.rows:
        row["ward/$x^2$"] = "100 % $"
    files = draw(predictions, tmp_path, "ward/$x^2$")
    assert files[-1] == tmp_path / "by_0.png"


def test_a_picture_does_not_need_a_defined_figure(make_predictions, tmp_path):
    predictions = make_predictions()
    for row in predictions.rows:
        row["label"] = "covid"
    assert len(draw(predictions, tmp_path, "severity")) == 5


def test_the_diagonal_of_a_sure_model_is_dark(tmp_path):
    summary = summarise_counts(["a", "b"], np.array([[50.0, 0], [0, 50]]), resamples=20)
    draw_confusion(summary, tmp_path / "c.png")
    grey = cv2.cvtColor(cv2.imread(str(tmp_path / "c.png")), cv2.COLOR_BGR2GRAY)
    # Two dark squares of four, without the colour bar at the right.
    assert 0.15 < (grey[:, : grey.shape[1] * 3 // 4] < 100).mean() < 0.4


def test_a_column_in_which_nothing_stands_has_no_picture(make_predictions, tmp_path):
    predictions = make_predictions()
    for row in predictions.rows:
        row["severity"] = ""
    files = draw(predictions, tmp_path, "severity,source")
    assert [path.name for path in files][-1] == "by_source.png"
    assert not (tmp_path / "by_severity.png").exists()


@pytest.mark.parametrize(
    ("folds", "classes", "told_apart"), [(5, 2, True), (6, 2, False), (3, 3, False), (1, 2, False)]
)
def test_few_folds_of_one_class_are_told_apart(make_predictions, tmp_path, folds, classes, told_apart):
    scores = scores_of(make_predictions(180, ("covid", "normal", "pneumonia")[:classes], folds=folds))
    draw_roc(scores, summarise(scores, resamples=20), tmp_path / "roc.png")
    picture = cv2.cvtColor(cv2.imread(str(tmp_path / "roc.png")), cv2.COLOR_BGR2RGB)
    for colour in RUN_COLOURS[1 : min(folds, 5)] or RUN_COLOURS[1:]:
        wanted = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
        assert (np.abs(picture.astype(int) - wanted).max(axis=2) < 3).any() == told_apart
