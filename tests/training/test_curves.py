import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure

from cxrtool.data.tables.manifest import read_table
from cxrtool.training.curves import ONLY_LOOKING, OTHERS, draw_history, draw_panels, loss_and, write_history
from cxrtool.training.engine import History
from cxrtool.training.job import COLUMNS


def rows(epochs, validated=True):
    return [
        {
            "epoch": epoch + 1,
            "lr": 1e-3 / 3,
            "train_loss": 1 / (epoch + 3),
            "train_accuracy": 0.5,
            "validation_loss": 2 / (epoch + 3) if validated else None,
            "validation_accuracy": 0.25 if validated else None,
        }
        for epoch in range(epochs)
    ]


def test_a_row_an_epoch_with_nine_digits(tmp_path):
    write_history(tmp_path / "history.csv", rows(2))
    table = read_table(tmp_path / "history.csv")
    assert table.columns == list(COLUMNS)
    assert table.rows[0] == {
        "epoch": "1",
        "lr": "0.000333333333",
        "train_loss": "0.333333333",
        "train_accuracy": "0.5",
        "validation_loss": "0.666666667",
        "validation_accuracy": "0.25",
    }
    assert len(table) == 2


def test_what_was_not_measured_is_empty(tmp_path):
    write_history(tmp_path / "history.csv", rows(1, validated=False))
    assert read_table(tmp_path / "history.csv").rows[0]["validation_loss"] == ""
    write_history(tmp_path / "none.csv", [])
    assert (tmp_path / "none.csv").read_text() == ",".join(COLUMNS) + "\n"


@pytest.mark.parametrize(("epochs", "validated"), [(1, True), (5, False)])
def test_curves_are_drawn_the_same_every_time(tmp_path, epochs, validated):
    history = History(rows(epochs, validated), 1)
    for name in "ab":
        draw_history(tmp_path / f"{name}.png", history, "covid-xnet, r0f0")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    picture = cv2.imread(str(tmp_path / "a.png"))
    assert picture.shape[1] == 1350
    # The validation's colour is there where there was one.
    vermilion = np.abs(picture.astype(int) - (0, 0x5E, 0xD5)).sum(2) < 30
    assert vermilion.any() == validated


def test_watched_test_images_have_a_line_and_a_title_of_their_own(tmp_path, monkeypatch):
    watching = [{**row, "test_loss": 0.7, "test_accuracy": 0.75} for row in rows(5, validated=False)]
    draw_history(tmp_path / "a.png", History(watching, 5), "vgg16, r0f0")
    picture = cv2.imread(str(tmp_path / "a.png")).astype(int)
    assert (np.abs(picture - (0x73, 0x9E, 0)).sum(2) < 30).any()
    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *given, **more: figures.append(figure))
    empty = [{**row, "test_loss": None, "test_accuracy": None} for row in watching]
    for told in (watching, empty, rows(5)):
        draw_history(tmp_path / "b.png", History(told, 5), "vgg16, r0f0")
    titles = [figure.get_suptitle() for figure in figures]
    assert titles == [f"vgg16, r0f0\n{ONLY_LOOKING}", "vgg16, r0f0", "vgg16, r0f0"]
    assert [line.get_linestyle() for line in figures[0].axes[0].lines] == ["-", "-.", ":"]


@pytest.mark.parametrize("epochs", [1, 4])
def test_terms_of_a_loss_have_panels_of_their_own(tmp_path, epochs):
    told = [
        {**row, "train_mse a": 10.0**-k, "train_mse b": 0.5, "train_tv a": 0.0, "train_tv b": 0.0}
        for k, row in enumerate(rows(epochs))
    ]
    panels = loss_and(
        "accuracy",
        "the classifier's",
        {name: {line: f"train_{name} {line}" for line in "ab"} for name in ("mse", "tv")},
    )
    assert [panel.what for panel in panels] == ["the classifier's", "accuracy", "mse", "tv"]
    draw_panels(tmp_path / "a.png", History(told, 1), "generators", panels)
    picture = cv2.imread(str(tmp_path / "a.png")).astype(int)
    for colour, _ in OTHERS[:2]:
        green, blue = int(colour[3:5], 16), int(colour[5:], 16)
        assert (np.abs(picture - (blue, green, int(colour[1:3], 16))).sum(2) < 30).any()
