import numpy as np
import pytest

from cxrtool.errors import InputError
from cxrtool.evaluation.counts import draw_counts, read_counts


@pytest.mark.parametrize(
    "text",
    [
        "true,normal,covid\nnormal,8,2\ncovid,1,9\n",
        ",normal,covid\ncovid,1,9\nnormal,8,2\n",
        "\ufefftrue;normal;covid\r\nnormal; 8;2\r\n\r\ncovid;1;9\r\n",
        "\tnormal\tcovid\nnormal\t8\t2\ncovid\t1\t9",
    ],
)
def test_counts_in_any_layout(tmp_path, text):
    (tmp_path / "m.csv").write_bytes(text.encode())
    classes, counts, notes = read_counts(tmp_path / "m.csv")
    assert classes == ["normal", "covid"]
    assert counts.tolist() == [[8, 2], [1, 9]]
    assert notes == []


@pytest.mark.parametrize(
    "corner",
    ["Prediction", "predicted", "y_pred", "Predicted class", "Prediction / Reference", r"pred\true", "Pred vs. truth"],
)
def test_rows_of_predictions_are_turned_and_told(tmp_path, corner):
    (tmp_path / "m.csv").write_text(f"{corner},normal,covid\nnormal,8,1\ncovid,2,9\n")
    classes, counts, notes = read_counts(tmp_path / "m.csv")
    assert (classes, counts.tolist()) == (["normal", "covid"], [[8, 2], [1, 9]])
    assert "the table was turned" in notes[0]


@pytest.mark.parametrize("corner", ["", "true", "Actual", "Reference", r"true\predicted", "Actual/Predicted", "class"])
def test_rows_of_true_classes_are_not_turned(tmp_path, corner):
    (tmp_path / "m.csv").write_text(f"{corner},normal,covid\nnormal,8,2\ncovid,1,9\n")
    assert read_counts(tmp_path / "m.csv")[1].tolist() == [[8, 2], [1, 9]]


@pytest.mark.parametrize(
    "text",
    [
        "true,a,b,All\na,8,2,10\nb,1,9,10\nAll,9,11,20\n",
        "true,a,b,Total\na,8,2,10\nb,1,9,10\n",
        "true,a,b\na,8,2\nb,1,9\nSum,9,11\n",
        "true,Total,a,b\nTotal,20,9,11\na,10,8,2\nb,10,1,9\n",
        "true,a,b,everything\na,8,2,10\nb,1,9,10\neverything,9,11,20\n",
        "true,a,b,All\na,8.0,2.0,10.0\nb,1.0,9.0,10.0\nAll,9.0,11.0,20.0\n",
    ],
)
def test_totals_are_left_out_and_told(tmp_path, text):
    (tmp_path / "m.csv").write_text(text)
    classes, counts, notes = read_counts(tmp_path / "m.csv")
    assert (classes, counts.tolist()) == (["a", "b"], [[8, 2], [1, 9]])
    assert notes
    assert all("holds the sums of the others and was left out" in note for note in notes)


def test_a_total_that_is_none_is_refused(tmp_path):
    (tmp_path / "m.csv").write_text("true,a,b,All\na,8,2,10\nb,1,9,11\nAll,9,11,20\n")
    with pytest.raises(InputError, match="expected the column 'All' to hold the sums of the others"):
        read_counts(tmp_path / "m.csv")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "found an empty file"),
        ("true,a\na,3\n", "line 1: expected two or more different classes, found a"),
        ("true,a,a\na,3,1\n", "line 1: expected two or more different classes"),
        ("true,a,b\na,3,1\nc,1,2\n", "line 3: expected one row for each of a, b, found 'c'"),
        ("true,a,b\na,3,1\na,1,2\n", "line 3: .* found 'a' a second time"),
        ("true,a,b\na,3,1\n", "expected one row for each class, found none for b"),
        ("true,a,b\na,3\nb,1,2\n", "line 2: expected 2 counts, found 1"),
        ("true,a,b\na,3,1\nb,1,0.5\n", r"line 3: expected counts \(0, 1, 2, …\), found '0.5'"),
        ("true,a,b\na,3,-1\nb,1,2\n", "line 2: expected counts .*, found '-1'"),
        ("true,a,b\na,0,0\nb,0,0\n", "found only zeros"),
    ],
)
def test_what_is_no_confusion_matrix_is_refused_with_its_line(tmp_path, text, told):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(InputError, match=told):
        read_counts(tmp_path / "m.csv")


def test_a_missing_or_binary_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_counts(tmp_path / "none.csv")
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(InputError, match="found binary data"):
        read_counts(tmp_path / "b.csv")


def test_resampled_counts_keep_the_images_of_each_class():
    counts = np.array([[80.0, 20, 0], [0, 5, 5], [0, 0, 0]])
    drawn = draw_counts(counts, 4000, np.random.default_rng(0))
    assert (drawn.sum(axis=2) == counts.sum(axis=1)).all()
    np.testing.assert_allclose(drawn.mean(axis=0), counts, atol=0.3)
    assert drawn[:, 0, 0].std() == pytest.approx(4, rel=0.05)
