import numpy as np
import pytest

from cxrtool.evaluation.decisions.abstention import abstain
from cxrtool.evaluation.decisions.net_benefit import decision_curve
from cxrtool.evaluation.decisions.operating import operating_counts, operating_point
from cxrtool.evaluation.decisions.tables import decision_figures, decision_notes, decision_sheets
from cxrtool.evaluation.decisions.validation import find_validation
from cxrtool.evaluation.scores import scores_of

FEW = "only 9 validation images; 50 are needed"


def fitted(fold, temperature, images, reason, before, after):
    told = {"temperature": temperature, "images": images, "reason": reason, "nll_before": before, "nll_after": after}
    return {"repeat": "0", "fold": fold, **told}


RUNS = [
    fitted("0", 1.5, 60, None, 0.6, 0.5),
    fitted("1", 2.25, 61, None, 0.7, 0.4),
    fitted("2", 1.0, 9, FEW, None, None),
]
CHOSEN = {
    "sensitivity": 0.95,
    "positive": "covid",
    "runs": [
        {"repeat": "0", "fold": str(k), "threshold": 0.2 + k / 10, "rank": 1, "positives": 20 + k, "reason": None}
        for k in range(3)
    ],
}


@pytest.fixture(scope="module")
def summary(with_validation):
    predictions = with_validation(90, 120, folds=3)
    scores = scores_of(predictions)
    return {
        "classes": ["covid", "normal", "pneumonia"],
        "positive": "covid",
        "images": 90,
        "runs": 3,
        "patients_known": True,
        "temperature": RUNS,
        "thresholds": CHOSEN,
        "operating": [
            operating_point(scores, 0, prevalences=(0.01,), resamples=30),
            operating_point(scores, 0, rule="threshold for sensitivity 0.95", prevalences=(0.01,), resamples=30),
        ],
        "decision_curve": decision_curve(scores, 0, prevalences=(0.01,), resamples=30),
        "abstention": abstain(scores, find_validation(predictions, scores), resamples=30),
    }


def test_the_notes_say_what_was_fitted_and_where_not(summary):
    assert decision_notes(summary) == [
        "Probabilities are calibrated: temperatures from 1.5 to 2.25 in 2 runs, fitted on the validation images of "
        "each run (above 1: they were too extreme).",
        "Probabilities are not calibrated (temperature 1) in r0f2: only 9 validation images; 50 are needed.",
        "An image is predicted covid from the threshold that keeps a sensitivity of 0.95 on the validation images of "
        "each run: thresholds from 0.2 to 0.4 in 3 runs, chosen on 20 to 22 images of covid in each.",
    ]
    assert decision_notes({"temperature": RUNS[2:]}) == [
        "Probabilities are not calibrated (temperature 1): only 9 validation images; 50 are needed."
    ]
    assert decision_notes({}) == []


def test_a_table_for_each_question(summary):
    found = {sheet.title: sheet for sheet in decision_sheets(summary, " of x", 2)}
    assert list(found) == [
        "Chosen on validation images of x",
        "Operating point: covid against the rest of x",
        "Least confident images left undecided of x",
        "Net benefit of acting on covid of x",
    ]
    for sheet in found.values():
        assert all(len(row) == len(sheet.columns) for row in sheet.rows)
    assert found["Chosen on validation images of x"].rows[1] == ["r0f1", "61", "2.25", "0.700", "0.400", "21", "0.300"]
    operating = {row[0]: row[1] for row in found["Operating point: covid against the rest of x"].rows}
    counts = summary["operating"][0]["counts"]
    assert operating["true positives"] == f"{counts['tp']:.0f}"
    assert operating["PPV where 0.01 are covid"].startswith(
        f"{summary['operating'][0]['at_prevalence']['0.01']['ppv']['value']:.3f} ("
    )
    assert [row[0] for row in found["Least confident images left undecided of x"].rows] == [
        "100%",
        "95%",
        "90%",
        "80%",
        "70%",
        "50%",
    ]
    assert decision_sheets({"runs": 3}, "", 2) == []


def test_where_the_test_itself_gave_the_cut_the_table_says_so(summary):
    own = {**summary["abstention"], "cuts_from": {"validation": 1, "test": 2}}
    (sheet,) = decision_sheets({"runs": 3, "abstention": own}, "", 2)
    told = " ".join(sheet.notes)
    assert "on the validation images of each run in 1 of 3 runs" in told
    assert "on the test images themselves in 2 of 3 runs (fewer than 20 validation images)" in told


def test_of_many_runs_no_row_each(summary):
    titles = [sheet.title for sheet in decision_sheets({**summary, "runs": 25}, "", 2)]
    assert "Chosen on validation" not in titles


def test_every_figure_is_in_the_tidy_table(summary):
    rows = list(decision_figures(summary))
    sections = {section for section, *_ in rows}
    assert sections == {"temperature", "threshold", "operating", "abstention", "decision_curve"}
    figures = {(section, name, metric): measure["value"] for section, name, metric, measure, _ in rows}
    assert figures["temperature", "r0f1", "temperature"] == 2.25
    assert (
        figures["operating", "most probable class", "ppv_at_0.01"]
        == (summary["operating"][0]["at_prevalence"]["0.01"]["ppv"]["value"])
    )
    assert (
        figures["decision_curve", "prevalence 0.01", "net_benefit_at_0.05"]
        == (summary["decision_curve"][1]["net_benefit"][4])
    )
    assert len(rows) == len(figures)
    keys = {"value", "low", "high", "method", "sd_runs", "sd_repeats", "reason", "mean_runs"}
    assert all(keys <= set(measure) for *_, measure, _ in rows)


def test_wilsons_ends_are_told():
    counts = np.array([[50.0, 0.0], [4.0, 20.0]])
    point = operating_counts(["normal", "covid"], counts, 1, prevalences=(0.1,), resamples=30)
    (sheet,) = decision_sheets({"runs": 1, "operating": [point]}, "", 2)
    assert any(note.startswith("From Wilson's intervals of sensitivity and specificity: ") for note in sheet.notes)
    assert "no image was wrongly predicted covid" in " ".join(sheet.notes)
