"""Figures that papers printed, recomputed from their counts by `cxrtool evaluate`, to the last printed digit."""

import json
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from itertools import product

import pytest

from cxrtool.data.tables.manifest import write_table

MAKRIS_TRUNCATED = {
    ("mobilenetv2", "pneumonia"),
    ("inceptionv3", "normal"),
    ("xception", "normal"),
    ("xception", "pneumonia"),
    ("densenet201", "pneumonia"),
    ("resnet152v2", "normal"),
    ("resnet152v2", "pneumonia"),
    ("nasnetlarge", "normal"),  # 42 / 48 = 0.875, printed 0.87
}
"""Specificities that were printed cut off instead of rounded."""
MAKRIS_IMPOSSIBLE = {"vgg16", "vgg19", "nasnetlarge"}
"""Accuracies that no count of 68 images gives."""
MAKRIS_CUT = {"mobilenetv2", "densenet201"}
"""Accuracies that were printed cut off."""


@pytest.fixture(scope="module")
def published():
    from pathlib import Path

    path = Path(__file__).resolve().parents[3] / "shared" / "reference" / "published_tables.json"
    if not path.is_file():
        pytest.skip(f"the papers' tables are not at {path}")
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture
def evaluated(cxr, tmp_path):
    """The metrics that the command gives for a matrix of counts."""

    def call(classes, counts, *options):
        rows = [dict(zip(["", *classes], [name, *row], strict=True)) for name, row in zip(classes, counts, strict=True)]
        write_table(tmp_path / "counts.csv", ["", *classes], rows)
        outcome = cxr("evaluate", "--confusion-matrix", tmp_path / "counts.csv", "--format", "json", "-q", *options)
        assert (outcome.code, outcome.err) == (0, "")
        return json.loads(outcome.out)

    return call


def digits(printed):
    """A figure as it was printed, and how many decimals it had at least."""
    return max(-Decimal(str(printed)).as_tuple().exponent, 2)


def rounded(value, printed, rule=ROUND_HALF_UP, decimals=None):
    step = Decimal(1).scaleb(-(decimals or digits(printed)))
    return float(Decimal(str(round(value, 10))).quantize(step, rule))


def agrees(measure, printed, percent=False):
    value = measure["value"] * (100 if percent else 1)
    assert rounded(value, printed) == printed, (value, printed)


def test_vgg16_portable(published, evaluated):
    paper = published["vgg16-portable"]
    found = evaluated(paper["classes"], paper["confusion"])
    for name in paper["classes"]:
        for metric, ours in (("precision", "precision"), ("recall", "sensitivity"), ("f1", "f1")):
            agrees(found["per_class"][name][ours], paper["printed"][name][metric])
    printed = paper["printed"]["overall"]
    agrees(found["overall"]["accuracy"], printed["accuracy"])
    agrees(found["overall"]["macro_specificity"], printed["specificity_macro"])
    agrees(found["overall"]["accuracy"], paper["headline"]["whole image"]["accuracy"])
    agrees(found["overall"]["macro_specificity"], paper["headline"]["whole image"]["specificity"])
    # Not recoverable: the mean over classes is 0.78; weighted by support, which is accuracy, it is 0.79.
    assert round(found["overall"]["macro_sensitivity"]["value"], 4) == 0.7849
    agrees(found["overall"]["accuracy"], printed["sensitivity_macro"])
    assert found["overall"]["macro_auc"]["reason"] == "counts have no scores"


def test_covid_xnet(published, evaluated):
    paper = published["covid-xnet"]
    sums = {}
    for number, fold in enumerate(paper["folds"], 1):
        counts = [[fold["tn"], fold["fp"]], [fold["fn"], fold["tp"]]]
        found = evaluated(paper["classes"], counts, "--positive", "covid")
        of_class, overall = found["per_class"]["covid"], found["overall"]
        measures = {name: of_class[name] for name in ("sensitivity", "specificity", "precision", "f1")}
        measures["balanced_accuracy"] = overall["balanced_accuracy"]
        assert overall["hard_auc"]["value"] == overall["balanced_accuracy"]["value"]
        for name, measure in measures.items():
            sums[name] = sums.get(name, 0) + measure["value"] / 5
            if (number, name) == (2, "sensitivity"):
                assert rounded(100 * measure["value"], 0.01) == 93.99, "not recoverable: printed 94.00"
            else:
                agrees(measure, fold[name], percent=True)
    for name, value in sums.items():
        assert rounded(100 * value, paper["mean"][name]) == paper["mean"][name], name


def test_makris(published, evaluated):
    paper = published["makris"]
    for network, printed in paper["networks"].items():
        if printed["confusion"] is None:
            assert network == "vgg19", "its printed row fits no matrix"
            continue
        found = evaluated(paper["classes"], printed["confusion"])
        assert [row[k] for k, row in enumerate(found["confusion"])] == printed["hits"]
        for name in paper["classes"]:
            ours = found["per_class"][name]
            for metric, key in (("precision", "precision"), ("recall", "sensitivity"), ("f1", "f1")):
                agrees(ours[key], printed[name][metric])
            specificity, shown = ours["specificity"]["value"], printed[name]["specificity"]
            cut = (network, name) in MAKRIS_TRUNCATED
            assert rounded(specificity, shown, ROUND_DOWN if cut else ROUND_HALF_UP) == shown
            assert (rounded(specificity, shown) == shown) is not cut
        accuracy, shown = found["overall"]["accuracy"]["value"], printed["accuracy"]
        if network in MAKRIS_IMPOSSIBLE:
            assert all(
                rounded(k / 68, 0.0001, rule) != shown for k in range(69) for rule in (ROUND_DOWN, ROUND_HALF_UP)
            )
        else:
            rule = ROUND_DOWN if network in MAKRIS_CUT else ROUND_HALF_UP
            assert rounded(accuracy, shown, rule, decimals=4) == shown, network


@pytest.mark.parametrize("setting", ["with normal-pcr+", "without normal-pcr+"])
def test_covid_sdnet_severities(published, cxr, tmp_path, setting):
    paper = published["covid-sdnet"]
    rows = []
    for stratum, (hits, total) in paper["severity_counts_over_five_repeats"][setting].items():
        for number in range(total):
            # Five repeats of the same images; the hits lie somewhere among them.
            image, repeat = divmod(number, 5)
            right = number < hits
            rows.append(
                {
                    "image_id": f"{stratum}{image}",
                    "label": "P",
                    "predicted": "P" if right else "N",
                    "severity": stratum,
                    "repeat": str(repeat),
                    "fold": "0",
                    "subset": "test",
                    "prob_N": f"{1 - right}",
                    "prob_P": f"{right:d}",
                }
            )
    write_table(tmp_path / "predictions.csv", list(rows[0]), rows)
    outcome = cxr(
        "evaluate", tmp_path / "predictions.csv", "--by", "severity", "--positive", "P", "--format", "json", "-q"
    )
    found = json.loads(outcome.out)["per_group"]["severity"]
    printed = paper["severity_accuracy_percent"][setting]
    assert list(found) == list(printed), "from least to most severe"
    for stratum, (percent, _) in printed.items():
        assert found[stratum]["images"] == paper["dataset"][stratum]
        agrees(found[stratum]["accuracy"], percent, percent=True)
        assert found[stratum]["sensitivity"]["value"] == found[stratum]["accuracy"]["value"]


@pytest.mark.parametrize(
    ("experiment", "right", "total"),
    [
        ("experiment 1: normal vs pathological+covid", 258, 324),
        ("experiment 2: normal+pathological vs covid", 130, 144),
    ],
)
def test_portable_densenet161(published, evaluated, experiment, right, total):
    """Only the accuracies name counts; a matrix that gives all the other printed figures exists."""
    printed = published["portable-densenet161"][experiment]
    assert rounded(right / total, printed["accuracy"], ROUND_DOWN) == printed["accuracy"]
    first, second = (name for name in printed if isinstance(printed[name], dict) and "recall" in printed[name])
    wanted = [printed[name][metric] for name in (first, second) for metric in ("precision", "recall", "f1")]
    fitting = []
    for size, hits in product(range(1, total), range(1, right)):
        rest, others = total - size, right - hits
        if hits <= size and 0 < others <= rest:
            false_first, false_second = rest - others, size - hits
            figures = [
                hits / (hits + false_first),
                hits / size,
                2 * hits / (size + hits + false_first),
                others / (others + false_second),
                others / rest,
                2 * others / (rest + others + false_second),
            ]
            if [rounded(figure, 0.01) for figure in figures] == wanted:
                fitting.append([[hits, false_second], [false_first, others]])
    assert fitting
    for counts in fitting:
        found = evaluated([first, second], counts)
        for name in (first, second):
            for metric, key in (("precision", "precision"), ("recall", "sensitivity"), ("f1", "f1")):
                agrees(found["per_class"][name][key], printed[name][metric])
        assert rounded(found["overall"]["accuracy"]["value"], 0.0001, ROUND_DOWN) == printed["accuracy"]
