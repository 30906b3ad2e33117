import numpy as np
import pytest

from cxrtool.evaluation.groups import parse_groupings
from cxrtool.evaluation.scores import scores_of
from cxrtool.evaluation.summary import summarise, summarise_counts
from cxrtool.evaluation.tables import NO_AUDIT, TIDY, cell, markdown, opening, sheets, tidy


@pytest.fixture(scope="module")
def summary(make_predictions):
    scores = scores_of(make_predictions(240, repeats=2, folds=3))
    return summarise(scores, by=parse_groupings("severity,age:0,40"), resamples=100)


@pytest.fixture(scope="module")
def single(make_predictions):
    return summarise(scores_of(make_predictions()), resamples=50)


@pytest.mark.parametrize(
    ("value", "low", "high", "digits", "shown"),
    [
        (0.942, 0.907, 0.961, 2, "0.94 (0.91-0.96)"),
        (0.942, 0.907, 0.961, 4, "0.9420 (0.9070-0.9610)"),
        (1.0, 0.95, 1.0, 2, "1.00 (0.95-1.00)"),
        (-0.2, -0.3, -0.1, 1, "-0.2 (-0.3 to -0.1)"),
        (0.5, None, None, 2, "0.50"),
        (None, None, None, 2, "-"),
    ],
)
def test_a_figure_is_readable(value, low, high, digits, shown):
    assert cell({"value": value, "low": low, "high": high}, digits) == shown


def test_the_opening_says_in_plain_words_what_was_done(summary):
    assert opening({"": summary}) == [
        "240 images of 120 patients, 3 classes (covid, normal, pneumonia), 6 runs (2 repeats of 3 folds).",
        "In brackets: 95% intervals from 100 resamples of patients within label, or Wilson's where noted "
        "(test sampling, trained models fixed).",
        NO_AUDIT,
    ]


def test_the_opening_tells_what_was_left_out(make_predictions):
    predictions = make_predictions()
    for row in predictions.rows:
        row["patient_id"] = ""
    predictions.rows[0]["label"] = ""
    lines = opening({"": summarise(scores_of(predictions), resamples=20)})
    assert lines[0] == "119 images, 3 classes (covid, normal, pneumonia), 1 run."
    assert lines[1:3] == [
        "Rows excluded because they have no label: 1.",
        "There is no patient_id: every image counts as a patient, so intervals may be too narrow.",
    ]
    assert "resamples of images within label" in lines[3]


def test_one_table_of_all_one_of_classes_one_a_group(summary):
    found = sheets({"": summary})
    assert [sheet.title for sheet in found] == [
        "All images",
        "Each class against the rest",
        "Confusion matrix, summed over 2 repeats",
        "By severity",
        "By age",
        "Each fold",
    ]
    for sheet in found:
        assert all(len(row) == len(sheet.columns) for row in sheet.rows)
    assert found[0].columns == ["metric", "value", "mean ± SD of runs", "SD of repeats"]
    assert found[0].rows[0][1] == cell(summary["overall"]["accuracy"])
    assert found[1].rows[-1] == ["images", "80", "80", "80"]
    assert [row[0] for row in found[3].rows] == ["mild", "moderate", "severe", "(none)"]
    assert [row[0] for row in found[4].rows] == ["0 to under 40", "40 and over"]


def test_notes_gather_figures_that_share_a_remark(summary):
    notes = sheets({"": summary})[3].notes
    assert "Wilson's interval: accuracy, sensitivity of mild, moderate, severe." in notes
    assert "all images are of covid: specificity of mild, moderate, severe." in notes
    assert any(note.startswith("Trend over mild < moderate < severe: accuracy changes by ") for note in notes)


def test_a_single_run_has_no_empty_columns(single):
    assert sheets({"": single})[0].columns == ["metric", "value"]


def test_several_evaluations_stand_side_by_side(summary, single):
    results = {"internal": summary, "external": single}
    found = sheets(results)
    assert found[0].columns == ["metric", "internal", "external"]
    assert found[0].rows[0] == ["accuracy", *(cell(results[name]["overall"]["accuracy"]) for name in results)]
    assert "Each class against the rest of external" in [sheet.title for sheet in found]
    assert opening(results)[:2] == [
        "internal: 240 images of 120 patients, 3 classes (covid, normal, pneumonia), 6 runs (2 repeats of 3 folds).",
        "external: 120 images of 60 patients, 3 classes (covid, normal, pneumonia), 1 run.",
    ]
    columns, rows = tidy(results)
    assert columns[0] == "set"
    assert {row[0] for row in rows} == {"internal", "external"}


def test_the_tidy_table_holds_every_figure_exactly(summary):
    columns, rows = tidy({"": summary})
    assert tuple(columns) == TIDY
    table = {tuple(row[:3]): dict(zip(columns, row, strict=True)) for row in rows}
    assert len(table) == len(rows) == 12 + 3 * 8 + 4 * 6 + 6 * 6
    found = table["per_class", "covid", "sensitivity"]
    expected = summary["per_class"]["covid"]["sensitivity"]
    assert float(found["value"]) == expected["value"]
    assert float(found["low"]) == expected["low"]
    assert (found["n"], found["method"]) == ("80", "patient bootstrap")
    assert table["severity", "mild", "specificity"]["value"] == ""
    assert table["severity", "mild", "specificity"]["reason"] == "all images are of covid"


def test_digits(summary):
    assert sheets({"": summary}, digits=4)[0].rows[0][1] == cell(summary["overall"]["accuracy"], 4)


def test_markdown_survives_names_with_bars(make_predictions):
    scores = scores_of(make_predictions(classes=("a|b", "c")))
    text = markdown({"": summarise(scores, resamples=20)})
    assert "| metric | a\\|b | c |" in text
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(lines) > 20


def test_counts_have_tables_too():
    found = sheets({"": summarise_counts(["a", "b"], np.array([[40.0, 2], [3, 50]]), resamples=50)})
    assert [sheet.title for sheet in found] == ["All images", "Each class against the rest", "Confusion matrix"]
    assert any(note.startswith("counts have no scores: AUC (macro)") for note in found[0].notes)


def test_the_folds_stand_under_one_another_with_their_mean(make_predictions):
    summary = summarise(scores_of(make_predictions(folds=4)), positive="covid", resamples=50)
    (sheet,) = [sheet for sheet in sheets({"": summary}) if sheet.title == "Each fold"]
    assert sheet.columns == [
        "fold",
        "images",
        "sensitivity",
        "specificity",
        "precision",
        "F1",
        "AUC",
        "balanced accuracy",
    ]
    assert [row[0] for row in sheet.rows] == ["r0f0", "r0f1", "r0f2", "r0f3", "mean"]
    column = [float(row[2]) for row in sheet.rows]
    assert column[-1] == pytest.approx(sum(column[:-1]) / 4, abs=1e-3)
    _, rows = tidy({"": summary})
    assert sum(row[0] == "per_run" for row in rows) == 4 * 6
    summary["per_run"][1]["auc"] = None
    (sheet,) = [sheet for sheet in sheets({"": summary}) if sheet.title == "Each fold"]
    assert sheet.rows[1][6] == "-"
    many = summarise(scores_of(make_predictions(folds=4, repeats=3)), resamples=50)
    assert not [sheet for sheet in sheets({"": many}) if sheet.title == "Each fold"]
    assert len(many["per_run"]) == 12


def test_groups_over_several_repeats_show_their_spread(make_predictions):
    for repeats in (1, 3):
        summary = summarise(
            scores_of(make_predictions(60, repeats=repeats)), by=parse_groupings("source"), resamples=50
        )
        sheet = next(sheet for sheet in sheets({"": summary}) if sheet.title == "By source")
        assert ("SD of repeats" in sheet.columns) == (repeats > 1)
        assert {len(row) for row in sheet.rows} == {len(sheet.columns)}
        if repeats > 1:
            spread = summary["per_group"]["source"]["a"]["accuracy"]["sd_repeats"]
            assert sheet.rows[0][sheet.columns.index("SD of repeats")] == f"{spread:.3f}"
