from dataclasses import replace

import numpy as np
import pytest

from cxrtool.commands.fuse.twins import TwinsOptions, fuse_twins
from cxrtool.data.tables.predictions import Predictions, read_predictions, write_predictions
from cxrtool.data.tables.twins import twin_classes, twin_rows
from cxrtool.errors import InputError, UsageError
from cxrtool.flow.evaluating import EvaluateOptions, evaluate

GENERATORS = ["covid", "normal"]
CLASSES = twin_classes(GENERATORS, GENERATORS)


def predictions_of(images=8, *, repeats=2, classes=CLASSES, seed=0):
    """Answers about the twins of a few radiographs, in every repeat."""
    rng = np.random.default_rng(seed)
    rows = []
    for repeat in range(repeats):
        for k in range(images):
            label = GENERATORS[k % 2]
            own = {
                "image_id": f"i{k}",
                "path": f"/x/i{k}.png",
                "subset": ("test", "validation")[k % 3 == 2],
                "label": label,
                "predicted": "",
                "warning": "",
                "patient_id": f"p{k}",
                "sha256": f"{k}" * 8,
                "severity": ("mild", "severe")[k % 4 > 1] if label == "covid" else "",
            }
            twins = twin_rows(own, str(repeat), str(k % 2), GENERATORS)
            rows += [{**twin, "label": f"{label}@{twin['generator']}"} for twin in twins]
    values = rng.dirichlet(np.full(len(classes), 0.5), len(rows))
    return Predictions(list(classes), rows, values, columns=list(rows[0]))


@pytest.fixture
def join(settings, tmp_path):
    def call(predictions, **options):
        write_predictions(tmp_path / "twins.csv", predictions)
        out = tmp_path / "fused.csv"
        fuse_twins(TwinsOptions((tmp_path / "twins.csv",), **options), replace(settings, out=out))
        return read_predictions(out)

    return call


def by_hand(predictions, name, repeat):
    """Highest probability of a class of covid, and of one of normal, over both twins."""
    best = {"covid": 0.0, "normal": 0.0}
    for row, values in zip(predictions.rows, predictions.probabilities, strict=True):
        if (row["parent_id"], row["repeat"]) == (name, repeat):
            for label, value in zip(predictions.classes, values, strict=True):
                best[label.split("@")[0]] = max(best[label.split("@")[0]], value)
    return best


def test_one_row_a_radiograph_repeat_and_fold(join, listener):
    predictions = predictions_of()
    found = join(predictions)
    assert found.classes == ["covid", "normal"]
    assert len(found.rows) == 16
    for row, values in zip(found.rows, found.probabilities, strict=True):
        best = by_hand(predictions, row["image_id"], row["repeat"])
        assert values[0] == pytest.approx(best["covid"] / sum(best.values()), abs=1e-8)
        assert row["predicted"] == ("normal" if best["normal"] > best["covid"] else "covid")
        assert row["label"] == GENERATORS[int(row["image_id"][1:]) % 2]
    row = found.rows[0]
    assert (row["path"], row["patient_id"], row["severity"], row["sha256"]) == ("/x/i0.png", "p0", "mild", "0" * 8)
    assert not row.get("generator")
    assert not row.get("parent_id")
    assert {row["subset"] for row in found.rows} == {"test", "validation"}
    assert listener.said == ["fused 16 radiographs from 2 twins each, ties to covid"]


def test_the_deciding_twin_is_named_and_its_picture_shown(join):
    predictions = predictions_of()
    for row in predictions.rows:
        row["path"] = f"/x/{row['image_id']}.png"
    found = join(predictions)
    for row in found.rows:
        own = [
            i
            for i, twin in enumerate(predictions.rows)
            if (twin["parent_id"], twin["repeat"]) == (row["image_id"], row["repeat"])
        ]
        best = max(own, key=lambda i: predictions.probabilities[i].max())
        assert row["twin"] == predictions.rows[best]["generator"]
        assert row["path"] == predictions.rows[best]["path"]


def test_what_twins_do_not_share_is_not_told_of_the_radiograph(join):
    predictions = predictions_of()
    for k, row in enumerate(predictions.rows):
        row["sha256"], row["warning"] = str(k), f"odd {row['generator']}" if k < 2 else ""
    found = join(predictions)
    assert {row.get("sha256", "") for row in found.rows} == {""}
    assert found.rows[0]["warning"] == "odd covid; odd normal"


@pytest.mark.parametrize(("given", "called"), [(None, "covid"), ("covid", "covid"), ("normal", "normal")])
def test_ties_go_to_the_positive_class(join, given, called):
    predictions = predictions_of()
    predictions.probabilities[:] = [0.4, 0.1, 0.1, 0.4]
    found = join(predictions, positive=given)
    assert {row["predicted"] for row in found.rows} == {called}
    assert (found.probabilities == 0.5).all()


def test_without_covid_the_first_class_is_the_positive_one(join, listener):
    predictions = predictions_of()
    names = {"covid": "sick", "normal": "fine"}
    predictions.classes = ["fine@fine", "fine@sick", "sick@fine", "sick@sick"]
    for row in predictions.rows:
        row["generator"], row["label"] = names[row["generator"]], "fine@sick"
    join(predictions)
    assert listener.said[-1].endswith("ties to fine")
    with pytest.raises(UsageError, match="--positive: expected one of fine, sick, found 'covid'"):
        join(predictions, positive="covid")


def test_a_radiograph_without_one_of_its_twins_is_left_out_and_told(join, listener):
    predictions = predictions_of()
    predictions.rows, predictions.probabilities = predictions.rows[1:], predictions.probabilities[1:]
    assert len(join(predictions).rows) == 15
    assert listener.warned == ["excluded 1 radiograph without all twins: i0"]


def test_labels_may_still_be_the_radiographs(join):
    predictions = predictions_of()
    usual = [row["label"] for row in join(predictions).rows]
    for row in predictions.rows:
        row["label"] = row["label"].split("@")[0]
    assert [row["label"] for row in join(predictions).rows] == usual


def test_what_is_not_of_twins_is_refused(join):
    plain = predictions_of()
    plain.classes = ["covid", "normal", "a", "b"]
    with pytest.raises(InputError, match="expected a class of twins such as covid@covid, found 'covid'"):
        join(plain)
    lacking = predictions_of(classes=CLASSES[:3])
    with pytest.raises(InputError, match="expected a class for each label and generator, found none of normal@normal"):
        join(lacking)
    foreign = predictions_of()
    foreign.rows[3]["generator"] = "viral"
    with pytest.raises(InputError, match=r"expected rows of twins.*found 'i1_r0f1_normal' with 'i1' and 'viral'"):
        join(foreign)
    twice = predictions_of()
    twice.rows[1]["generator"] = "covid"
    with pytest.raises(InputError, match="expected one twin of 'i0' by covid in a fold, found two"):
        join(twice)
    torn = predictions_of()
    torn.rows[1]["label"] = "normal@normal"
    with pytest.raises(InputError, match="'i0': expected twins of one label, found covid and normal"):
        join(torn)


def test_severity_of_fused_twins_over_repeated_folds(join, settings, tmp_path):
    found = join(predictions_of(48, repeats=4))
    groups = evaluate(
        EvaluateOptions((str(tmp_path / "fused.csv"),), by="severity", positive="covid", resamples=50), settings
    )[""]["per_group"]["severity"]
    for name in ("mild", "severe"):
        shares = []
        for repeat in "0123":
            own = [
                row for row in found.rows if (row["repeat"], row["severity"], row["subset"]) == (repeat, name, "test")
            ]
            shares.append(np.mean([row["predicted"] == "covid" for row in own]))
        assert groups[name]["accuracy"]["value"] == pytest.approx(np.mean(shares))
        assert groups[name]["accuracy"]["sd_repeats"] == pytest.approx(np.std(shares, ddof=1))
