import os

import numpy as np
import pytest

from cxrtool.data.tables.predictions import Predictions, dump_predictions, join, read_predictions, write_predictions
from cxrtool.errors import InputError


def make(classes=("covid", "normal"), n=3, repeat="0", fold="0", seed=0):
    values = np.random.default_rng(seed).dirichlet(np.ones(len(classes)), n).astype(np.float32).astype(np.float64)
    rows = [
        {
            "image_id": f"i{k}",
            "path": f"/data/i{k}.png",
            "repeat": repeat,
            "fold": fold,
            "subset": "test",
            "label": classes[0],
            "predicted": classes[1],
            "warning": "",
            "patient_id": f"p{k}",
            "hospital": "H",
        }
        for k in range(n)
    ]
    return Predictions(list(classes), rows, values)


def test_a_float32_comes_back_exactly(tmp_path):
    predictions = make(n=200)
    write_predictions(tmp_path / "p.csv", predictions)
    read = read_predictions(tmp_path / "p.csv").probabilities
    assert np.array_equal(read.astype(np.float32), predictions.probabilities.astype(np.float32))


def test_columns_stand_in_their_order_and_strangers_behind(tmp_path):
    header = dump_predictions(make()).splitlines()[0]
    assert header == (
        "image_id,path,repeat,fold,subset,label,predicted,prob_covid,prob_normal,warning,patient_id,hospital"
    )


def test_rows_keep_everything_but_probabilities(tmp_path):
    predictions = make()
    write_predictions(tmp_path / "p.csv", predictions)
    read = read_predictions(tmp_path / "p.csv")
    assert read.classes == ["covid", "normal"]
    assert [row["hospital"] for row in read.rows] == ["H"] * 3
    assert not any(name.startswith("prob_") for row in read.rows for name in row)
    assert read.runs() == [("0", "0")]


def test_paths_are_relative_in_the_file_and_absolute_in_memory(tmp_path):
    predictions = make(n=1)
    predictions.rows[0]["path"] = str(tmp_path / "images" / "a.png")
    (tmp_path / "r0f0").mkdir()
    write_predictions(tmp_path / "r0f0" / "p.csv", predictions)
    assert ",../images/a.png," in f",{(tmp_path / 'r0f0' / 'p.csv').read_text()}".replace("\n", ",")
    assert read_predictions(tmp_path / "r0f0" / "p.csv").rows[0]["path"] == str(tmp_path / "images" / "a.png")


def test_a_class_name_may_hold_anything(tmp_path):
    predictions = make(classes=("no finding, really", "prob_", "é"))
    write_predictions(tmp_path / "p.csv", predictions)
    assert read_predictions(tmp_path / "p.csv").classes == ["no finding, really", "prob_", "é"]


@pytest.mark.parametrize("cell", ["", "nan", "-0.1", "1.5", "inf", "much"])
def test_what_is_no_probability_is_refused_with_its_line(tmp_path, cell):
    (tmp_path / "p.csv").write_text(f"image_id,prob_a\n1,0.5\n2,{cell}\n")
    with pytest.raises(InputError, match=rf"line 3: expected a probability between 0 and 1 in prob_a, found '{cell}'"):
        read_predictions(tmp_path / "p.csv")


def test_a_table_without_probabilities_is_refused(tmp_path):
    (tmp_path / "p.csv").write_text("image_id,prob_\n1,0.5\n")
    with pytest.raises(InputError, match="expected columns prob_<class>, found: image_id, prob_"):
        read_predictions(tmp_path / "p.csv")


def test_join_puts_runs_under_one_another():
    both = join([make(fold="0"), make(fold="1", n=2)], "both")
    assert both.probabilities.shape == (5, 2)
    assert both.runs() == [("0", "0"), ("0", "1")]
    with pytest.raises(InputError, match="expected the classes covid, normal"):
        join([make(), make(classes=("a", "b"))], "no")


def test_as_a_frame_probabilities_are_numbers_and_the_rest_is_text():
    predictions = make(n=2)
    frame = predictions.frame
    assert list(frame.columns)[-2:] == ["prob_covid", "prob_normal"]
    assert frame.dtypes[-2:].tolist() == [np.float64, np.float64]
    again = Predictions.of_frame(frame, "again")
    assert (again.classes, again.rows, again.name) == (predictions.classes, predictions.rows, "again")
    assert np.array_equal(again.probabilities, predictions.probabilities)
    assert dump_predictions(again) == dump_predictions(predictions)


def test_what_was_changed_since_is_what_is_joined_and_written(tmp_path):
    write_predictions(tmp_path / "p.csv", make(n=2))
    read = read_predictions(tmp_path / "p.csv")
    assert read.text["label"][0] == "covid"
    read.rows[0]["label"] = "changed"
    read.probabilities = read.probabilities[::-1]
    both = join([read, make(n=1, fold="1")], "both")
    assert both.rows[0]["label"] == "changed"
    assert np.array_equal(both.probabilities[:2], read.probabilities)
    assert dump_predictions(both).splitlines()[1] == dump_predictions(read).splitlines()[1]


def test_a_table_of_no_answers_is_one_still(tmp_path):
    (tmp_path / "p.csv").write_text("image_id,prob_a,prob_b\n")
    read = read_predictions(tmp_path / "p.csv")
    assert (read.rows, read.probabilities.shape, read.probabilities.dtype) == ([], (0, 2), np.float64)
    assert join([read, read], "both").probabilities.shape == (0, 2)


def test_the_first_of_several_wrong_cells_is_named(tmp_path):
    (tmp_path / "p.csv").write_text("image_id,prob_a,prob_b\n1,0.5,2\n2,x,0.5\n")
    with pytest.raises(InputError, match=r"line 2: expected a probability between 0 and 1 in prob_b, found '2'"):
        read_predictions(tmp_path / "p.csv")


def test_paths_are_absolute_and_normal(tmp_path):
    paths = ["a/b.png", "a/../c.png", "/x/./y.png", "/y.png", "./z.png", "z", "a//b.png", "a/..", "//h/x.png", "", "a/"]
    lines = [f"im{index},{path},1" for index, path in enumerate(paths)]
    (tmp_path / "p.csv").write_text("\n".join(["image_id,path,prob_a", *lines]))
    expected = [os.path.normpath(tmp_path / path) if path else "" for path in paths]
    assert read_predictions(tmp_path / "p.csv").column("path") == expected
