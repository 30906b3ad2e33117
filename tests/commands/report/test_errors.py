import numpy as np

from cxrtool.commands.report.errors import draw_errors, find_errors, tabulate
from cxrtool.data.tables.predictions import Predictions
from cxrtool.evaluation.scores import scores_of


def scores(*told):
    """Rows of image, repeat, label, called, probability of `a`."""
    rows = [
        {
            "image_id": name,
            "path": f"/nowhere/{name}.png",
            "repeat": repeat,
            "fold": "0",
            "subset": "test",
            "label": label,
            "predicted": called,
            "sex": "F",
        }
        for name, repeat, label, called, _ in told
    ]
    values = np.array([[p, 1 - p] for *_, p in told])
    return scores_of(Predictions(["a", "b"], rows, values), abstaining=True)


def test_errors_come_once_an_image_the_surest_first():
    found = find_errors(
        scores(
            ("x", "0", "a", "b", 0.4),
            ("x", "1", "a", "b", 0.1),
            ("x", "2", "a", "a", 0.8),
            ("y", "0", "b", "a", 0.7),
            ("y", "1", "b", "b", 0.3),
            ("y", "2", "b", "b", 0.3),
            ("z", "0", "a", "a", 0.99),
            ("z", "1", "a", "inconclusive", 0.5),
            ("z", "2", "a", "a", 0.9),
        )
    )
    told = [
        (w.row["image_id"], w.row["repeat"], w.label, w.predicted, round(w.probability, 6), w.times, w.of)
        for w in found
    ]
    assert told == [("x", "1", "a", "b", 0.9, 2, 3), ("y", "0", "b", "a", 0.7, 1, 3)]


def test_the_table_leaves_out_what_is_not_known():
    sheet = tabulate(find_errors(scores(("x", "0", "a", "b", 0.25), ("y", "0", "b", "b", 0.2))))
    assert sheet.columns == ["image", "true class", "predicted", "probability", "sex"]
    assert sheet.rows == [["x", "a", "b", "0.750", "F"]]


def test_images_that_are_gone_are_told(tmp_path, settings):
    wrong = find_errors(scores(("x", "0", "a", "b", 0.25), ("y", "0", "b", "b", 0.2)))
    pictures, remarks = draw_errors(wrong, [], {}, tmp_path, settings, heatmaps=True)
    assert pictures == []
    assert remarks == ["1 of these 1 images are missing and are not shown."]
