import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure

from cxrtool.evaluation.groups import parse_groupings
from cxrtool.evaluation.plots.curves import POINTS, draw_confusion, draw_rankings, draw_scores, thinned
from cxrtool.evaluation.scores import scores_of
from cxrtool.evaluation.summary import summarise, summarise_counts
from cxrtool.imaging.canvas import SERIES


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
    draw_rankings(scores, summarise(scores, resamples=20), tmp_path / "roc.png", tmp_path / "pr.png")
    picture = cv2.cvtColor(cv2.imread(str(tmp_path / "roc.png")), cv2.COLOR_BGR2RGB)
    for colour, _ in SERIES[1 : min(folds, 5)] or SERIES[1:]:
        wanted = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
        assert (np.abs(picture.astype(int) - wanted).max(axis=2) < 3).any() == told_apart


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """The figures of the ROC and the precision-recall curves, not saved."""
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *given, **more: figures.append(figure))

    def call(predictions, more=None, **options):
        figures.clear()
        scores = scores_of(predictions)
        summary = summarise(scores, resamples=60, **options) | (more or {})
        draw_rankings(scores, summary, tmp_path / "roc.png", tmp_path / "pr.png")
        return summary, figures[0], figures[1]

    return call


def marked(axes):
    """Position of each operating point."""
    markers = [line for line in axes.lines if line.get_marker() in POINTS]
    return [tuple(float(np.ravel(part)[0]) for part in line.get_data()) for line in markers]


def test_the_operating_point_is_where_the_metrics_were_measured(make_predictions, drawn):
    summary, roc, recall = drawn(make_predictions(120), positive="covid")
    of = {name: entry["value"] for name, entry in summary["per_class"]["covid"].items() if name != "support"}
    assert marked(roc.axes[0]) == [pytest.approx((1 - of["specificity"], of["sensitivity"]))]
    assert marked(recall.axes[0]) == [pytest.approx((of["sensitivity"], of["precision"]))]
    whole = {"low": None, "high": None}
    points = [
        {"positive": "covid", "rule": rule, **{name: {"value": value, **whole} for name in names}}
        for rule, value, names in (
            ("most probable class", 0.5, ("sensitivity", "specificity", "ppv")),
            ("threshold for sensitivity 0.9", 0.9, ("sensitivity", "specificity", "ppv")),
        )
    ]
    _, roc, _ = drawn(make_predictions(120), {"operating": points}, positive="covid")
    assert marked(roc.axes[0]) == [pytest.approx((0.5, 0.5)), pytest.approx((0.1, 0.9))]
    labels = [text.get_text() for text in roc.legends[0].get_texts()]
    assert "operating point: threshold for sensitivity 0.9" in labels


def test_the_band_holds_the_curve_and_needs_more_than_one_ranking(make_predictions, drawn):
    _, roc, recall = drawn(make_predictions(120, folds=3))
    for figure in (roc, recall):
        assert "95 % interval at each point" in [text.get_text() for text in figure.legends[0].get_texts()]
        assert len(figure.axes[0].collections) == 1
    certain = make_predictions(40, ("covid", "normal"))
    for i, row in enumerate(certain.rows):
        certain.probabilities[i] = [0.9, 0.1] if row["label"] == "covid" else [0.1, 0.9]
        row["predicted"] = row["label"]
    _, roc, _ = drawn(certain)
    assert not roc.axes[0].collections
    assert roc.axes[0].get_title(loc="left").endswith("AUC 1.00, no interval")
    assert not roc.axes[0].child_axes, "a corner with nothing in it"


def test_the_corner_is_enlarged_only_where_the_curve_passes_it(make_predictions, drawn):
    for skill, wanted in ((0.3, 0), (2.5, 1)):
        _, roc, _ = drawn(make_predictions(300, skill=skill))
        assert len(roc.axes[0].child_axes) == wanted


@pytest.mark.parametrize("classes", [2, 9])
def test_long_names_are_inside_the_picture(make_predictions, tmp_path, classes):
    names = [f"severe acute respiratory syndrome of the kind {k}" for k in range(classes)]
    for path in draw(make_predictions(270, names, folds=2), tmp_path, "source"):
        picture = cv2.imread(str(path))
        for edge in (picture[:2], picture[-2:], picture[:, :2], picture[:, -2:]):
            assert (edge == 255).all(), path.name


def test_a_curve_of_many_points_is_thinned_without_a_visible_difference():
    rng = np.random.default_rng(0)
    x, y = np.sort(rng.random(100_000)), np.sort(rng.random(100_000))
    fewer_x, fewer_y = thinned(x, y)
    assert len(fewer_x) < 25_000
    assert (fewer_x[0], fewer_x[-1], fewer_y[-1]) == (x[0], x[-1], y[-1])
    assert np.abs(np.interp(x, fewer_x, fewer_y) - y).max() < 1 / 2000
    short = x[:5000], y[:5000]
    assert all(found is given for found, given in zip(thinned(*short), short, strict=True))


@pytest.mark.parametrize("names", [["covid", "normal", "pneumonia"], ["no", "tuberculosis of any kind", "x", "y", "z"]])
def test_nothing_of_a_confusion_matrix_is_cut(tmp_path, names):
    draw_confusion(summarise_counts(names, np.eye(len(names)) * 9, resamples=20), tmp_path / "c.png")
    grey = cv2.cvtColor(cv2.imread(str(tmp_path / "c.png")), cv2.COLOR_BGR2GRAY)
    assert min(grey[:, 0].min(), grey[:, -1].min(), grey[0].min(), grey[-1].min()) > 250
