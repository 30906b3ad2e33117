import pytest

from cxrtool.errors import InputError


def test_lines_become_rows(published, listed):
    rows = listed("covidx", published("covidx"))
    told = {
        name: tuple(record.columns.get(column, "-") for column in ("label", "patient_id", "source", "subset"))
        for name, record in rows.items()
    }
    assert told == {
        "train/auntminnie-a.jpeg": ("COVID-19", "1", "cohen", "train"),
        "train/COVID-00003b.jpg": ("pneumonia", "COVID-00003", "figure1", "train"),
        "train/COVID-15.png": ("COVID-19", "COVID 15", "sirm", "train"),
        "train/normal (2).png": ("normal", "9", "cohen", "train"),
        "train/gone.png": ("COVID-19", "ANON45", "actualmed", "train"),
        "test/0000a175.png": ("normal", "0000a175", "rsna", "test"),
        "test/old.jpg": ("pneumonia", "3", "-", "test"),
    }


def test_one_list_alone(published, listed):
    assert len(listed("covidx", published("covidx") / "test_COVIDx9A.txt")) == 2


def test_two_versions_are_not_mixed(published, listed):
    root = published("covidx")
    (root / "train_COVIDx9B.txt").write_text("1 auntminnie-a.jpeg positive cohen\n")
    with pytest.raises(InputError, match=r"images for train, found train_COVIDx9A.txt, train_COVIDx9B.txt") as caught:
        listed("covidx", root)
    assert "train_COVIDx9A.txt" in caught.value.hint
    assert listed("covidx", root / "train_COVIDx9B.txt")["train/auntminnie-a.jpeg"].columns["label"] == "positive"


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("train.txt", "1 a.png Level2\n", "line 1: expected patient, file, normal, .* found '1 a.png Level2'"),
        ("train.txt", "1 a.png normal cohen more\n", "found '1 a.png normal cohen more'"),
        ("train.txt", "a.png normal\n", "found 'a.png normal'"),
        ("train_COVIDx_CT-2A.txt", "a.png 1 0 0 9 9\n", "CT slices"),
        ("notes.txt", "x\n", "text files such as train_COVIDx9A.txt"),
    ],
)
def test_what_is_none_of_it_is_said(tmp_path, listed, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=words):
        listed("covidx", tmp_path)
