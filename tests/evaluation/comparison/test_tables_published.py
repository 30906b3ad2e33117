from dataclasses import replace

import pytest

from cxrtool.evaluation.comparison.runs import Entry, compare_runs
from cxrtool.evaluation.comparison.tables import published
from cxrtool.evaluation.scores import scores_of
from cxrtool.recipes.published import beside, read_published


@pytest.fixture
def compared(make_predictions):
    """Two runs of two classes beside a paper."""

    def call(paper, networks, change=lambda paper: paper):
        entries = [
            Entry(name, scores_of(make_predictions(60, ("covid", "normal"), seed=k)), facts={"model": network})
            for k, (name, network) in enumerate(networks.items())
        ]
        found = compare_runs(entries, resamples=30)
        found["published"] = beside(change(read_published(paper)), networks)
        return published(found), found

    return call


def test_folds_that_were_printed_stand_below_their_mean(compared):
    table, found = compared("covid-xnet", {"mine": "covid-xnet"})
    assert table.columns == [
        "run",
        "class",
        "accuracy",
        "from counts",
        "balanced accuracy",
        "AUC",
        "precision",
        "recall",
        "F1",
        "specificity",
    ]
    assert [row[0] for row in table.rows] == [
        "mine",
        "COVID-XNet (printed)",
        *(f"COVID-XNet (printed), fold {k}" for k in range(1, 6)),
    ]
    # The accuracy of the abstract is none, so only what follows from the counts is shown.
    assert table.rows[1][2:] == ["", "0.9491", "0.9443", "0.988", "0.9376", "0.9253", "0.9314", "0.9633"]
    assert table.rows[2][3:6] == ["0.9761", "0.9743", "0.997"]
    ours = found["runs"]["mine"]
    assert table.rows[0][4] == f"{ours['overall']['balanced_accuracy']['value']:.3f}"
    assert table.rows[0][7] == f"{ours['per_class']['covid']['sensitivity']['value']:.2f}"


def test_what_is_printed_of_all_classes_goes_first_and_round_figures_are_no_errors(compared):
    table, found = compared("vgg16-portable", {"whole": "vgg16", "segmented": "vgg16"})
    rows = {(row[0], row[1]): dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert [row[1] for row in table.rows][:4] == ["(mean)", "(mean)", "normal", "normal"]
    whole = rows["VGG16, whole image (printed)", "(mean)"]
    assert (whole["accuracy"], whole["from counts"], whole["recall"], whole["specificity"]) == (
        "0.79",
        "0.7856",
        "0.79",
        "0.93",
    )
    segmented = rows["VGG16, segmented lungs (printed)", "(mean)"]
    assert (segmented["accuracy"], segmented["from counts"], segmented["AUC"], segmented["recall"]) == (
        "0.88",
        "",
        "0.89",
        "0.91",
    )
    mine = rows["segmented", "(mean)"]
    assert mine["recall"] == f"{found['runs']['segmented']['overall']['macro_sensitivity']['value']:.2f}"
    # 0.7856 is printed as 0.79, which is no misprint.
    assert not any("images right are" in note for note in table.notes)
    assert "whole has no class viral, bacterial." in table.notes


def test_a_remark_on_two_runs_of_one_network_is_made_once(compared):
    table, _ = compared("covid-xnet", {"one": "covid-xnet", "two": "covid-xnet"})
    assert len(table.notes) == len(set(table.notes))


PAPER = {"covid": "P", "normal": "N"}


@pytest.fixture
def sdnet(make_predictions):
    """Fused predictions and a run of ResNet-50, of five repeats and two folds, beside COVID-SDNet's tables."""

    def call(paper="covid-sdnet", names=PAPER, positive="P", strata=("Mild", "moderate", "normal-pcr+")):
        entries = []
        for k, name in enumerate(("covid-sdnet", "whole")):
            predictions = make_predictions(80, tuple(names.values()), repeats=5, folds=2, seed=k)
            for row in predictions.rows:
                place = ("mild", "moderate", "severe").index(row["severity"]) if row["severity"] else None
                row["severity"] = "" if place is None else strata[place]
            entries.append(Entry(name, scores_of(predictions)))
        papers = read_published(paper)
        found = compare_runs(entries, positive=positive, by=papers.grouped_by, resamples=30)
        classes = entries[0].scores.classes
        found["published"] = beside(papers, {"covid-sdnet": "", "whole": "resnet50.a1_in1k"}, classes, positive)
        return published(found), found

    return call


def test_means_and_standard_deviations_stand_as_percentages(sdnet):
    table, found = sdnet()
    assert table.columns == ["run", "class", "accuracy", "precision", "recall", "F1", "specificity"]
    rows = {(row[0], row[1]): dict(zip(table.columns, row, strict=True)) for row in table.rows}
    paper = rows["COVID-SDNet (printed)", "N"]
    assert (paper["accuracy"], paper["precision"], paper["recall"], paper["F1"]) == (
        "76.18 ± 2.70",
        "74.74 ± 3.89",
        "79.76 ± 6.19",
        "76.94 ± 2.82",
    )
    assert rows["COVID-SDNet (printed)", "P"]["recall"] == "72.59 ± 6.77"
    assert rows["ResNet-50 without segmentation (printed)", "N"]["accuracy"] == "74.25 ± 3.61"
    ours = found["runs"]["covid-sdnet"]
    accuracy, recall = ours["overall"]["accuracy"], ours["per_class"]["P"]["sensitivity"]
    for cell, measure in (
        (rows["covid-sdnet", "N"]["accuracy"], accuracy),
        (rows["covid-sdnet", "P"]["recall"], recall),
    ):
        assert cell == f"{100 * measure['mean_runs']:.2f} ± {100 * measure['sd_runs']:.2f}"
    assert any("means ± standard deviations" in note for note in table.notes)
    assert "In the paper, but not here: ResNet-50 with segmentation, FuCiTNet" in " ".join(table.notes)


def test_severities_stand_below_with_the_spread_of_the_repeats(sdnet):
    table, found = sdnet()
    lines = [row[:3] for row in table.rows if row[1].startswith("severity: ")]
    assert [line[:2] for line in lines] == [
        ["covid-sdnet", "severity: normal-pcr+"],
        ["COVID-SDNet (printed)", "severity: normal-pcr+"],
        ["covid-sdnet", "severity: mild"],
        ["COVID-SDNet (printed)", "severity: mild"],
        ["covid-sdnet", "severity: moderate"],
        ["COVID-SDNet (printed)", "severity: moderate"],
        ["COVID-SDNet (printed)", "severity: severe"],
    ]
    assert [line[2] for line in lines if "printed" in line[0]] == [
        "28.42 ± 2.58",
        "61.80 ± 5.49",
        "86.90 ± 3.20",
        "97.72 ± 0.95",
    ]
    mild = found["runs"]["covid-sdnet"]["per_group"]["severity"]["Mild"]["accuracy"]
    assert mild["sd_repeats"] > 0
    assert lines[2][2] == f"{100 * mild['value']:.2f} ± {100 * mild['sd_repeats']:.2f}"


def test_our_names_stand_for_the_paper_s_two_classes(sdnet):
    table, _ = sdnet(names={"covid": "covid", "normal": "negative"}, positive="covid")
    rows = {(row[0], row[1]): row for row in table.rows}
    assert rows["COVID-SDNet (printed)", "covid"][4] == "72.59 ± 6.77"
    assert rows["COVID-SDNet (printed)", "negative"][4] == "79.76 ± 6.19"
    assert "The paper's class N is negative here." in table.notes
    assert not any("has no class" in note for note in table.notes)
    unnamed, _ = sdnet(names={"covid": "covid", "normal": "negative"}, positive=None)
    assert any("has no class" in note for note in unnamed.notes)


def only_accuracies(paper):
    return replace(paper, rows=tuple(replace(row, per_class={}) for row in paper.rows))


def test_a_paper_that_prints_nothing_but_accuracies_has_a_line_for_each(compared):
    networks = {"covid-caps": "covid-caps", "thumbnail": "thumbnail"}
    table, found = compared("covid-sdnet-without-normal-pcr", networks, only_accuracies)
    assert [row[:3] for row in table.rows][1] == ["COVID-CAPS, retrained (printed)", "(mean)", "69.20 ± 3.61"]
    ours = found["runs"]["covid-caps"]["overall"]["accuracy"]
    # A single run has no spread.
    assert table.rows[0][2] == f"{100 * ours['value']:.2f}"
