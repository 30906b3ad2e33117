import json
from importlib.resources import files

import numpy as np
import pytest

from cxrtool.errors import UsageError
from cxrtool.evaluation.metrics import class_metrics
from cxrtool.models.registry import check_name
from cxrtool.recipes.published import FIGURES, beside, published_names, read_published

NAMES = published_names()
OURS = {"precision": "precision", "recall": "sensitivity", "f1": "f1", "specificity": "specificity"}


def test_makris_is_there():
    assert "makris" in NAMES
    with pytest.raises(UsageError, match=r"--published: expected one of .*makris.*, found 'makri'"):
        read_published("makri")


@pytest.mark.parametrize("name", NAMES)
def test_every_table_is_whole(name):
    paper = read_published(name)
    assert paper.title
    assert "doi" in paper.source
    for row in paper.rows:
        assert set(row.per_class) == set(paper.classes)
        for figures in row.per_class.values():
            assert set(figures) == set(FIGURES)
            assert all(0 <= value <= 1 for value in figures.values())
        assert 0 <= row.accuracy <= 1
        assert len(row.hits) in (0, len(paper.classes))
        for network in (*row.networks, *row.stand_ins):
            check_name(network)


@pytest.mark.parametrize("name", NAMES)
def test_a_network_has_one_row(name):
    networks = [n for row in read_published(name).rows for n in (*row.networks, *row.stand_ins)]
    assert len(networks) == len(set(networks))


@pytest.mark.parametrize("name", NAMES)
def test_counts_give_what_is_printed(name):
    for row in read_published(name).rows:
        if row.confusion:
            counts = np.array(row.confusion, float)
            assert counts.sum(axis=1).tolist() == list(row.images)
            assert np.diag(counts).tolist() == list(row.hits)
            found = class_metrics(counts)
            for k, figures in enumerate(row.per_class.values()):
                for figure, value in figures.items():
                    # Some are printed truncated, which is up to a hundredth below.
                    assert -0.0051 <= found[OURS[figure]][k] - value < 0.01, (row.name, figure)
        if row.accuracy:
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
            expected["accuracy"], expected["hits"], expected["confusion"],
        )  # fmt: skip
        for label, figures in row["per_class"].items():
            assert figures == expected[label]
