import json
from importlib.resources import files
from types import SimpleNamespace

import numpy as np
import pytest

from cxrtool.commands.compare import CompareOptions
from cxrtool.errors import UsageError
from cxrtool.evaluation.metrics.confusion import class_metrics
from cxrtool.evaluation.summary import OVERALL
from cxrtool.models.registry import check_name
from cxrtool.recipes.published import METRICS, beside, published_names, read_published

NAMES = published_names()
OURS = {"precision": "precision", "recall": "sensitivity", "f1": "f1", "specificity": "specificity"}


def test_makris_is_there():
    assert "makris" in NAMES
    with pytest.raises(UsageError, match=r"--published: expected one of .*makris.*, found 'makri'"):
        CompareOptions(published="makri")


@pytest.mark.parametrize("name", NAMES)
def test_every_table_is_whole(name):
    paper = read_published(name)
    assert paper.title
    # Of the portable VGG16 system no citation is at hand.
    assert "doi" in paper.source or name == "vgg16-portable"
    for row in paper.rows:
        assert row.per_class or row.overall or row.accuracy
        for part in (row, *(SimpleNamespace(**fold) for fold in row.folds)):
            assert set(part.per_class) <= set(paper.classes)
            assert set(part.overall) <= set(OVERALL)
            for figures in (*part.per_class.values(), part.overall):
                assert all(0 <= value <= 1 for value in figures.values())
        for figures in row.per_class.values():
            assert set(figures) <= set(METRICS)
        assert row.accuracy is None or 0 <= row.accuracy <= 1
        assert len(row.hits) in (0, len(paper.classes))
        for network in (*row.networks, *row.stand_ins):
            check_name(network)


@pytest.mark.parametrize("name", NAMES)
def test_a_network_has_one_row(name):
    rows = read_published(name).rows
    keys = [(n, run) for row in rows for n in (*row.networks, *row.stand_ins) for run in row.runs or ("",)]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("name", NAMES)
def test_counts_give_what_is_printed(name):
    paper = read_published(name)
    for row in paper.rows:
        if row.confusion:
            counts = np.array(row.confusion, float)
            assert counts.sum(axis=1).tolist() == list(row.images)
            assert np.diag(counts).tolist() == list(row.hits)
            found = class_metrics(counts)
            for label, figures in row.per_class.items():
                k = paper.classes.index(label)
                for figure, value in figures.items():
                    # Some are printed truncated, which is up to a hundredth below.
                    assert -0.0051 <= found[OURS[figure]][k] - value < 0.01, (row.name, figure)
        if row.accuracy and row.hits:
            assert row.recomputed == pytest.approx(row.accuracy, abs=0.01)


def test_the_accuracies_that_cannot_be_are_recomputed():
    rows = {row.name: row for row in read_published("makris").rows}
    assert len(rows) == 9
    assert (rows["VGG16"].accuracy, round(rows["VGG16"].recomputed, 4)) == (0.9588, 0.9559)
    assert (rows["VGG19"].accuracy, round(rows["VGG19"].recomputed, 4)) == (0.9503, 0.9412)
    assert (rows["NASNetLarge"].accuracy, round(rows["NASNetLarge"].recomputed, 4)) == (0.8123, 0.8088)


def test_a_row_is_found_by_the_network_and_stand_ins_are_told():
    paper = read_published("makris")
    assert paper.match("vgg16.tv_in1k")[0].name == "VGG16"
    row, why = paper.match("resnetv2_101.a1h_in1k")
    assert row.name == "ResNet152V2"
    assert "stands in" in why
    assert paper.match("resnetv2_152")[1] == ""
    assert paper.match("covid-xnet") is None


def test_beside_our_runs():
    found = beside(read_published("makris"), {"a": "vgg16", "b": "vgg16", "c": "covid-xnet", "d": "resnetv2_101"})
    assert [(row["run"], row["name"]) for row in found["rows"]] == [
        ("a", "VGG16"),
        ("b", "VGG16"),
        ("d", "ResNet152V2"),
    ]
    assert found["rows"][0]["accuracy_recomputed"] == 65 / 68
    assert "resnetv2_101" in found["rows"][2]["stands_in"]
    assert len(found["not_run_here"]) == 7
    assert json.loads(json.dumps(found)) == found


def test_the_figures_are_those_of_the_reference(real_data):
    """What was collected from the paper beside some checkouts says the same."""
    reference = json.loads((real_data.parent / "reference" / "published_tables.json").read_text())["makris"]["networks"]
    content = json.loads((files("cxrtool.recipes") / "published_makris.json").read_text())
    for row in content["rows"]:
        expected = reference[row["name"].lower()]
        assert (row["accuracy"], row["hits"], row["confusion"]) == (
            expected["accuracy"],
            expected["hits"],
            expected["confusion"],
        )
        for label, figures in row["per_class"].items():
            assert figures == expected[label]


def test_a_network_that_stands_in_several_rows_is_told_by_its_run():
    paper = read_published("vgg16-portable")
    assert paper.match("vgg16.tv_in1k", "runs/segmented")[0].name == "VGG16, segmented lungs"
    assert paper.match("vgg16", "whole")[0].accuracy == 0.79
    assert paper.match("vgg16", "thumbnail") is paper.match("vgg16") is None
    found = beside(paper, {"whole": "vgg16", "segmented": "vgg16", "thumbnail": "thumbnail"})
    assert [row["run"] for row in found["rows"]] == ["whole", "segmented"]
    assert (found["rows"][0]["right"], found["rows"][0]["images"], found["not_run_here"]) == (403, 513, [])


def test_the_folds_of_covid_xnet_give_its_means():
    (row,) = read_published("covid-xnet").rows
    content = json.loads((files("cxrtool.recipes") / "published_covid-xnet.json").read_text())["rows"][0]
    counts = [np.array(fold["confusion"], float) for fold in content["folds"]]
    assert sum(counts).tolist() == [list(line) for line in row.confusion]
    for fold, cells in zip(row.folds, counts, strict=True):
        found = class_metrics(cells)
        for figure, value in fold["per_class"]["covid"].items():
            assert found[OURS[figure]][0] == pytest.approx(value, abs=1e-4)
        assert found["sensitivity"].mean() == pytest.approx(fold["overall"]["balanced_accuracy"], abs=6e-5)
        assert fold["accuracy_recomputed"] == pytest.approx(np.trace(cells) / cells.sum())
    for figure, value in row.per_class["covid"].items():
        mean = np.mean([fold["per_class"]["covid"][figure] for fold in row.folds])
        assert mean == pytest.approx(value, abs=2e-4)
    assert row.accuracy is None
    assert row.recomputed == pytest.approx(0.9491, abs=5e-5)


def test_the_other_papers_figures_are_those_of_the_reference_too(real_data):
    reference = json.loads((real_data.parent / "reference" / "published_tables.json").read_text())
    whole, segmented = read_published("vgg16-portable").rows
    theirs = reference["vgg16-portable"]
    assert [list(line) for line in whole.confusion] == theirs["confusion"]
    assert {label: dict(figures) for label, figures in whole.per_class.items()} == {
        label: theirs["printed"][label] for label in theirs["classes"]
    }
    for row, name in ((whole, "whole image"), (segmented, "segmented lungs")):
        printed = theirs["headline"][name]
        assert (row.accuracy, row.overall["macro_sensitivity"], row.overall["macro_specificity"]) == (
            printed["accuracy"],
            printed["sensitivity"],
            printed["specificity"],
        )
    (row,) = read_published("covid-xnet").rows
    for fold, printed in zip(row.folds, reference["covid-xnet"]["folds"], strict=True):
        figures = fold["per_class"]["covid"]
        for ours, name in (
            ("recall", "sensitivity"),
            ("specificity", "specificity"),
            ("precision", "precision"),
            ("f1", "f1"),
        ):
            assert figures[ours] == pytest.approx(printed[name] / 100)
        assert fold["overall"]["macro_auc"] == printed["auc"]


SDNET = {
    "COVID-SDNet": "covid-sdnet",
    "ResNet-50 without segmentation": "resnet50 without segmentation",
    "ResNet-50 with segmentation": "resnet50 with segmentation",
    "FuCiTNet": "fucitnet",
    "COVIDNet-CXR-A, retrained": "covidnet-a retrained",
    "COVID-CAPS, retrained": "covid-caps retrained",
}
"""Networks of the paper, by their names there and in the reference."""


def test_covid_sdnet_s_figures_are_those_of_the_reference(real_data):
    reference = json.loads((real_data.parent / "reference" / "published_tables.json").read_text())["covid-sdnet"]
    rows = {row.name: row for row in read_published("covid-sdnet").rows}
    ours = SDNET
    assert set(rows) == set(ours)
    table = {**reference["table 5 baselines"], "covid-sdnet": reference["covid-sdnet"]}
    assert set(reference["accuracy_percent"]) == set(ours.values())
    for name, key in ours.items():
        row = rows[name]
        found = [row.accuracy, row.sd["accuracy"]]
        assert found == pytest.approx([value / 100 for value in reference["accuracy_percent"][key]])
        for label, figure in (("N", "specificity"), ("P", "sensitivity")):
            printed = row.per_class[label]["recall"], row.sd["per_class"][label]["recall"]
            assert printed == pytest.approx([value / 100 for value in table[key][figure]])
    whole = rows["COVID-SDNet"]
    for label, word in (("N", "negative"), ("P", "positive")):
        for figure in ("precision", "f1"):
            printed = whole.per_class[label][figure], whole.sd["per_class"][label][figure]
            assert printed == pytest.approx([v / 100 for v in table["covid-sdnet"][f"{word}_{figure}"]])
    without = {row.name: row for row in read_published("covid-sdnet-without-normal-pcr").rows}
    for name, row in without.items():
        printed = reference["table 7, without normal-pcr+"][ours[name]]["accuracy"]
        assert [row.accuracy, row.sd["accuracy"]] == pytest.approx([value / 100 for value in printed])
    for row, key in ((whole, "with normal-pcr+"), (without["COVID-SDNet"], "without normal-pcr+")):
        printed = reference["severity_accuracy_percent"][key]
        assert {name: [100 * v for v in values] for name, values in row.groups["severity"].items()} == {
            name: pytest.approx(values) for name, values in printed.items()
        }
        # The counts that they follow from are told in words.
        for hits, images in reference["severity_counts_over_five_repeats"][key].values():
            assert f"{hits} of {images}" in row.notes[0]
    assert reference["without normal-pcr+"]["accuracy"] == [81.0, 2.87]
    figures = {"N": "specificity", "P": "sensitivity"}
    for label, figure in figures.items():
        row = without["COVID-SDNet"]
        found = [row.per_class[label]["recall"], row.sd["per_class"][label]["recall"]]
        assert found == pytest.approx([value / 100 for value in reference["without normal-pcr+"][figure]])


def test_the_portable_paper_s_figures_are_those_of_the_reference(real_data):
    reference = json.loads((real_data.parent / "reference" / "published_tables.json").read_text())
    rows = read_published("portable-densenet161").rows
    told = reference["portable-densenet161"]
    experiments = [told[name] for name in told]
    for row, printed, names in zip(
        rows, experiments, ({"positive": "pathological+covid"}, {"negative": "normal+pathological"}), strict=True
    ):
        assert row.accuracy == printed["accuracy"]
        for label, figures in row.per_class.items():
            assert figures == printed[names.get(label, label)]
        for part in ("validation", "training"):
            mean, spread = printed[f"best_{part}_accuracy"]
            assert f"{mean} ± {spread}" in row.notes[1]
            assert f"at epoch {printed[f'best_{part}_epoch']}" in row.notes[1]


def test_what_has_no_network_is_found_by_the_name_of_its_run():
    paper = read_published("covid-sdnet")
    assert paper.match("", "covid-sdnet")[0].name == "COVID-SDNet"
    assert paper.match("", "runs/fucitnet")[0].name == "FuCiTNet"
    assert paper.match("resnet50.a1_in1k", "whole")[0].name == "ResNet-50 without segmentation"
    assert paper.match("", "whole") is None
    row, why = paper.match("pepx", "pepx")
    assert row.name == "COVIDNet-CXR-A, retrained"
    assert "stands in for COVIDNet" in why


def test_a_table_without_a_stratum_is_not_that_of_images_with_it():
    paper = read_published("covid-sdnet-without-normal-pcr")
    rows = [{"severity": "mild"}, {"severity": ""}]
    assert paper.misfit(rows) == ""
    assert "left out the severity normal-pcr+" in paper.misfit([*rows, {"severity": "Normal-PCR+"}])
    assert read_published("covid-sdnet").misfit([{"severity": "normal-pcr+"}]) == ""


def test_classes_as_data_sets_write_them_are_those_of_the_paper():
    found = beside(read_published("makris"), {"a": "vgg16"}, ("COVID-19", "NORMAL", "Pneumonia"))
    assert set(found["rows"][0]["per_class"]) == {"COVID-19", "NORMAL", "Pneumonia"}
    same = beside(read_published("makris"), {"a": "vgg16"}, ("covid", "normal", "pneumonia"))
    assert list(found["rows"][0]["per_class"].values()) == list(same["rows"][0]["per_class"].values())


def test_where_no_network_is_the_paper_s_its_best_is_shown():
    found = beside(read_published("makris"), {"a": "resnet10t", "b": "lcnet_050"})
    assert not found["rows"]
    assert (found["best"]["name"], found["best"]["accuracy_printed"]) == ("VGG16", 0.9588)
    assert beside(read_published("makris"), {"a": "vgg16"})["best"] is None
    assert beside(read_published("makris"), {})["best"] is None


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("covid-sdnet", "table 5, with normal-pcr+"),
        ("covid-sdnet-without-normal-pcr", "table 7, without normal-pcr+"),
    ],
)
def test_covid_sdnet_s_tables_are_complete(real_data, name, table):
    """Precision, recall and F1 of both classes and the accuracy of every network, each with its deviation."""
    path = real_data.parent / "reference" / "published_tables_covid_sdnet.json"
    reference = json.loads(path.read_text(encoding="utf-8"))[table]
    rows = {row.name: row for row in read_published(name).rows}
    assert {SDNET[row] for row in rows} == set(reference)
    for row in rows.values():
        assert all(list(row.per_class[label]) == ["precision", "recall", "f1"] for label in "NP")
        for figure, printed in reference[SDNET[row.name]].items():
            if figure == "accuracy":
                found = row.accuracy, row.sd["accuracy"]
            else:
                label, metric = figure.split()[:2]
                found = row.per_class[label][metric], row.sd["per_class"][label][metric]
            assert found == pytest.approx([value / 100 for value in printed], abs=1e-9), (row.name, figure)
