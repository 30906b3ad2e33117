import csv
import io

import pytest

from cxrtool.data.tables.predictions import write_predictions


@pytest.fixture
def files(make_predictions, tmp_path):
    paths = [tmp_path / f"{name}.csv" for name in "ab"]
    for seed, path in enumerate(paths):
        write_predictions(path, make_predictions(24, folds=2, seed=seed))
    return paths


def test_a_table_goes_to_standard_output_and_what_is_told_does_not(cxr, files):
    outcome = cxr("fuse", "mean", *files)
    assert outcome.code == 0
    assert outcome.err == "averaged 24 predictions of 2 sources\n"
    rows = list(csv.DictReader(io.StringIO(outcome.out)))
    assert len(rows) == 24
    assert {"image_id", "repeat", "fold", "subset", "label", "predicted", "prob_covid"} <= rows[0].keys()


def test_a_file_holds_the_same_and_evaluate_and_compare_take_it(cxr, files, tmp_path):
    printed = cxr("fuse", "mean", *files).out
    assert cxr("fuse", "mean", *files, "-o", tmp_path / "mean.csv", "-q").err == ""
    written = (tmp_path / "mean.csv").read_text()
    assert written.splitlines()[0] == printed.splitlines()[0]
    assert len(written.splitlines()) == len(printed.splitlines())
    assert "24 images of 12 patients" in cxr("evaluate", tmp_path / "mean.csv", "--by", "severity").out
    assert cxr("compare", f"mean={tmp_path / 'mean.csv'}", f"one={files[0]}").code == 0


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("median", "x.csv"), "no such command 'fuse median'"),
        (("joint", "x.csv"), "expected two RUN or CSV, found 1"),
        (("joint", "x.csv", "y.csv", "--positive", "x"), "no such option --positive"),
        (("joint", "x.csv", "y.csv", "--rule", "neste"), "--rule: expected one of product, nested, found 'neste'; did"),
        (("twins", "x.csv", "--rule", "nested"), "no such option --rule"),
        (("twins", "x.csv", "--prior-correct"), "no such option --prior-correct"),
        (("mean", "x.csv", "y.csv", "--rule", "nested"), "no such option --rule"),
        (("mean", "x.csv", "y.csv", "--positive", "x"), "no such option --positive"),
    ],
)
def test_a_wrong_call_is_told_in_two_lines(cxr, args, told):
    outcome = cxr("fuse", *args)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("cxrtool fuse")
    assert told in outcome.err.splitlines()[0]
    assert len(outcome.err.splitlines()) <= 2


def test_predictions_that_are_not_of_twins_are_named(cxr, files):
    outcome = cxr("fuse", "twins", files[0])
    assert outcome.code == 1
    assert f"{files[0]}: expected a class of twins such as covid@covid, found 'covid'" in outcome.err
