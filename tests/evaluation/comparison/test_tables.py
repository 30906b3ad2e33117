import pytest

from cxrtool.evaluation.comparison.runs import Entry, compare_runs
from cxrtool.evaluation.comparison.tables import markdown, metric_name, opening, sheets, tidy
from cxrtool.evaluation.scores import scores_of
from cxrtool.evaluation.tables import NO_AUDIT
from cxrtool.recipes.published import beside, read_published

FOLDS = {("0", str(f)): 60 for f in range(3)}
KNOWN = {
    "model": "vgg16",
    "seconds": 12.345,
    "parameters": 14_700_000,
    "trained_parameters": 33_027,
    "macs": 15_346_630_656,
    "epochs": 35.0,
    "images": 60.0,
    "devices": ["cpu"],
    "threads": [1],
}


@pytest.fixture
def entries(make_predictions):
    def make(count=3, facts=KNOWN, **options):
        options = {"folds": 3, **options}
        return [
            Entry(f"m{k}", scores_of(make_predictions(60, seed=k, skill=1 + k / 2, **options)), FOLDS, facts=facts)
            for k in range(count)
        ]

    return make


def sheet(found, start):
    return next(table for table in sheets(found) if table.title.startswith(start))


def test_the_main_table_holds_what_is_asked_of_a_comparison(entries):
    found = compare_runs(entries(), baseline="m1", resamples=30)
    table = sheet(found, "Runs")
    assert table.columns == [
        "run",
        "accuracy",
        "balanced accuracy",
        "AUC (macro)",
        "seconds",
        "parameters",
        "trained",
        "MACs",
        "epochs",
        "fitted",
    ]
    assert [row[0] for row in table.rows] == ["m0", "m1 *", "m2"]
    assert table.rows[0][4:] == ["12.3", "14.70 M", "33 k", "15.35 G", "35", "60"]
    assert "(" in table.rows[0][1]
    assert table.notes[0] == "* reference; 60 test images of 30 patients, 3 trained models."


def test_facts_that_nobody_knows_have_no_column(entries):
    found = compare_runs(entries(facts={}), resamples=30)
    assert sheet(found, "Runs").columns[-1] == "AUC (macro)"
    some = entries()
    some[0] = Entry("m0", some[0].scores)
    row = sheet(compare_runs(some, resamples=30), "Runs").rows[0]
    assert row[4:] == ["-"] * 6


def test_another_metric_has_a_column_of_its_own(entries):
    found = compare_runs(entries(), metric="f1", positive="covid", resamples=30)
    assert metric_name(found) == "F1 of covid"
    assert sheet(found, "Runs").columns[4] == "F1 of covid"
    assert sheet(found, "Difference in F1 of covid from m")
    assert metric_name({"metric": "accuracy", "positive": "covid"}) == "accuracy"


def test_classes_are_shown_as_papers_print_them(entries):
    table = sheet(compare_runs(entries(2), resamples=30), "Each class")
    assert table.columns == ["run", "class", "precision", "recall", "F1", "specificity", "images"]
    assert [row[:2] for row in table.rows[:4]] == [
        ["m0", "covid"],
        ["m0", "normal"],
        ["m0", "pneumonia"],
        ["m1", "covid"],
    ]


def test_differences_carry_raw_and_adjusted_p(entries):
    table = sheet(compare_runs(entries(), baseline="m0", resamples=30), "Difference in accuracy from m0")
    assert table.columns == ["run", "difference", "p models", "Holm", "p methods", "Holm"]
    assert all(row[1][0] in "+-" for row in table.rows)
    assert table.notes[-1].startswith("DeLong, McNemar: 3 runs: scores and errors")
    alone = sheet(compare_runs(entries(2), baseline="m0", resamples=30), "Difference")
    assert alone.columns == ["run", "difference", "p models", "p methods"]


def test_what_is_not_compared_is_told_with_its_name(entries, make_predictions):
    runs = [*entries(2), Entry("other", scores_of(make_predictions(60, folds=2)))]
    table = sheet(compare_runs(runs, baseline="m0", resamples=30), "Difference")
    assert table.rows[1][1:] == ["-"] * 5
    assert any(note.startswith("other, not compared: not the same split") for note in table.notes)


def test_the_opening_says_how_the_reference_was_chosen_and_that_nothing_was_audited(entries):
    lines = opening(compare_runs(entries(), resamples=30))
    assert "optimistic" in lines[0]
    assert lines[-1] == NO_AUDIT


def test_remarks_that_all_share_are_made_once(entries):
    runs = entries()
    runs = [Entry(e.name, e.scores, notes=("Only 4 of 6 folds exist.",)) for e in runs[:2]]
    lines = opening(compare_runs(runs, resamples=30))
    assert lines.count("Only 4 of 6 folds exist.") == 1
    runs[1] = Entry("m1", runs[1].scores)
    assert "m0: Only 4 of 6 folds exist." in opening(compare_runs(runs, resamples=30))


def test_times_of_other_machines_are_not_set_side_by_side_in_silence(entries):
    runs = entries(2)
    runs[1] = Entry("m1", runs[1].scores, facts={**KNOWN, "devices": ["cuda"], "threads": [8]})
    notes = sheet(compare_runs(runs, resamples=30), "Runs").notes
    assert notes[-1] == "Seconds were not measured under the same conditions: cpu with 1 threads; cuda with 8 threads."


def test_a_paper_stands_beside(entries):
    found = compare_runs(entries(2), resamples=30)
    found["published"] = beside(read_published("makris"), {"m0": "vgg16", "m1": "resnetv2_101"})
    table = sheet(found, "Beside Makris")
    assert [row[:2] for row in table.rows[:3]] == [["m0", "covid"], ["VGG16 (printed)", "covid"], ["m0", "normal"]]
    assert table.rows[1][2:] == ["0.9588", "0.9559", "0.96", "0.96", "0.96", "0.98"]
    assert "VGG16: 65 of 68 images right are 0.9559; the paper prints 0.9588." in table.notes
    assert any("resnetv2_101 stands in" in note for note in table.notes)
    assert any(note.startswith("In the paper, but not here: VGG19") for note in table.notes)
    found["published"] = beside(read_published("makris"), {"m0": "covid-xnet"})
    assert "None of these networks" in sheet(found, "Beside").notes[0]


def test_a_paper_of_other_classes_says_so(make_predictions):
    found = compare_runs([Entry("m", scores_of(make_predictions(60, classes=("covid", "rest"))))], resamples=30)
    found["published"] = beside(read_published("makris"), {"m": "vgg16"})
    table = sheet(found, "Beside")
    assert table.rows[2][:2] == ["m", "normal"]
    assert table.rows[2][4:] == ["-"] * 4
    assert "m has no class normal, pneumonia." in table.notes


def test_markdown_and_tidy_hold_every_figure(entries):
    found = compare_runs(entries(), baseline="m0", resamples=30)
    found["published"] = beside(read_published("makris"), {"m0": "vgg16"})
    text = markdown(found)
    assert text.count("## ") == 4
    for line in text.splitlines():
        assert not line.startswith("|") or line.endswith("|")
    columns, rows = tidy(found)
    assert {row[0] for row in rows} == {"run", "class", "fact", "difference", "test", "published"}
    assert all(len(row) == len(columns) for row in rows)
    tests = [dict(zip(columns, row, strict=True)) for row in rows if row[0] == "test"]
    assert {(row["name"], row["metric"]) for row in tests} == {
        (name, test) for name in ("m1", "m2") for test in ("models", "methods", "delong", "mcnemar")
    }
    assert all(row["reason"] for row in tests if not row["p"])
