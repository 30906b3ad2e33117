import pytest

from cxrtool.evaluation.comparison_published import published
from cxrtool.evaluation.comparison_runs import Entry, compare_runs
from cxrtool.evaluation.scores import scores_of
from cxrtool.recipes.published import beside, read_published


@pytest.fixture
def compared(make_predictions):
    """Two runs of two classes beside a paper."""

    def call(paper, networks):
        entries = [Entry(name, scores_of(make_predictions(60, ("covid", "normal"), seed=k)), facts={"model": network})
                   for k, (name, network) in enumerate(networks.items())]  # fmt: skip
        found = compare_runs(entries, resamples=30)
        found["published"] = beside(read_published(paper), networks)
        return published(found), found

    return call


def test_folds_that_were_printed_stand_below_their_mean(compared):
    table, found = compared("covid-xnet", {"mine": "covid-xnet"})
    assert table.columns == ["run", "class", "accuracy", "from counts", "balanced accuracy", "AUC", "precision",
                             "recall", "F1", "specificity"]  # fmt: skip
    assert [row[0] for row in table.rows] == [
        "mine", "COVID-XNet (printed)", *(f"COVID-XNet (printed), fold {k}" for k in range(1, 6)),
    ]  # fmt: skip
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
        "0.79", "0.7856", "0.79", "0.93",
    )  # fmt: skip
    segmented = rows["VGG16, segmented lungs (printed)", "(mean)"]
    assert (segmented["accuracy"], segmented["from counts"], segmented["AUC"], segmented["recall"]) == (
        "0.88", "", "0.89", "0.91",
    )  # fmt: skip
    mine = rows["segmented", "(mean)"]
    assert mine["recall"] == f"{found['runs']['segmented']['overall']['macro_sensitivity']['value']:.2f}"
    # 0.7856 is printed as 0.79, which is no misprint.
    assert not any("images right are" in note for note in table.notes)
    assert "whole has no class viral, bacterial." in table.notes


def test_a_remark_on_two_runs_of_one_network_is_made_once(compared):
    table, _ = compared("covid-xnet", {"one": "covid-xnet", "two": "covid-xnet"})
    assert len(table.notes) == len(set(table.notes))
