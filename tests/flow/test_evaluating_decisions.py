import json
from dataclasses import replace

import numpy as np
import pytest

from cxrtool.commands.fuse.joint import JointOptions, fuse_joint
from cxrtool.commands.fuse.mean import MeanOptions, fuse_mean
from cxrtool.commands.fuse.twins import TwinsOptions, fuse_twins
from cxrtool.data.tables.manifest import write_table
from cxrtool.data.tables.predictions import join, read_predictions, write_predictions
from cxrtool.errors import InputError, UsageError
from cxrtool.evaluation.decisions.temperature import apply, fit
from cxrtool.flow.evaluating import EvaluateOptions, evaluate, parse_prevalences, read_metrics
from cxrtool.flow.settings import Settings


@pytest.fixture
def predictions(make_predictions):
    """Two runs with 90 test and 120 validation rows each, all of them too extreme."""
    tested, chosen = make_predictions(90, repeats=2), make_predictions(120, repeats=2, seed=1)
    rows = [
        {**row, "image_id": f"v{row['image_id']}", "patient_id": f"v{row['patient_id']}", "subset": "validation"}
        for row in chosen.rows
    ]
    both = join([tested, replace(chosen, rows=rows)], "synthetic")
    powers = both.probabilities**4
    return replace(both, probabilities=powers / powers.sum(axis=1, keepdims=True))


@pytest.fixture
def table(predictions, tmp_path):
    write_predictions(tmp_path / "p.csv", predictions)
    return tmp_path / "p.csv"


def ask(*inputs, **others):
    settings = others.pop("settings", Settings())
    return evaluate(EvaluateOptions(tuple(map(str, inputs)), resamples=40, **others), settings)


def test_without_the_options_nothing_is_added(table):
    plain = ask(table)[""]
    assert not {"temperature", "thresholds", "operating", "abstention", "decision_curve"} & set(plain)


def test_calibrated_each_run_has_its_temperature_and_better_figures(table, predictions):
    plain, found = ask(table)[""], ask(table, calibrated=True)[""]
    assert [(run["repeat"], run["fold"], run["images"]) for run in found["temperature"]] == [
        ("0", "0", 120),
        ("1", "0", 120),
    ]
    rows = [i for i, r in enumerate(predictions.rows) if (r["subset"], r["repeat"]) == ("validation", "1")]
    truth = np.array([predictions.classes.index(predictions.rows[i]["label"]) for i in rows])
    expected = fit(predictions.probabilities[rows], truth).value
    assert found["temperature"][1]["temperature"] == pytest.approx(expected, rel=1e-6)
    assert found["overall"]["ece"]["value"] < plain["overall"]["ece"]["value"] / 2
    assert found["overall"]["brier"]["value"] < plain["overall"]["brier"]["value"]
    for metric in ("accuracy", "balanced_accuracy", "mcc"):
        assert found["overall"][metric] == plain["overall"][metric]
    assert any(note.startswith("Probabilities are calibrated: temperatures from ") for note in found["notes"])


def test_without_validation_rows_it_stays_and_says_so(make_predictions, tmp_path):
    write_predictions(tmp_path / "t.csv", make_predictions(60))
    found = ask(tmp_path / "t.csv", calibrated=True)[""]
    assert found["temperature"][0]["reason"] == "the predictions have no validation rows"
    plain = ask(tmp_path / "t.csv")[""]
    assert found["overall"] == plain["overall"]
    assert found["notes"][-1] == (
        "Probabilities are not calibrated (temperature 1): the predictions have no validation rows."
    )


def test_a_sensitivity_decides_and_the_plain_decision_stands_beside_it(table, predictions):
    plain = ask(table, positive="covid")[""]
    found = ask(table, positive="covid", sensitivity=0.97)[""]
    assert [point["rule"] for point in found["operating"]] == ["most probable class", "threshold for sensitivity 0.97"]
    assert found["operating"][0] == plain["operating"][0]
    chosen = found["operating"][1]
    assert chosen["sensitivity"]["value"] > found["operating"][0]["sensitivity"]["value"]
    # All other tables are of the decisions that were asked for.
    assert found["per_class"]["covid"]["sensitivity"]["value"] == chosen["sensitivity"]["value"]
    for run in found["thresholds"]["runs"]:
        own = sorted(
            p[0]
            for p, row in zip(predictions.probabilities, predictions.rows, strict=True)
            if (row["subset"], row["repeat"], row["label"]) == ("validation", run["repeat"], "covid")
        )
        assert run["positives"] == len(own) == 40
        assert run["threshold"] == pytest.approx(own[0], rel=1e-6)
    assert found["overall"]["macro_auc"] == plain["overall"]["macro_auc"]


def test_thresholds_are_of_calibrated_scores_where_both_are_asked_for(table, predictions):
    found = ask(table, positive="covid", sensitivity=0.9, calibrated=True)[""]
    for run in found["thresholds"]["runs"]:
        temperature = next(t["temperature"] for t in found["temperature"] if t["repeat"] == run["repeat"])
        rows = [
            i
            for i, row in enumerate(predictions.rows)
            if (row["subset"], row["repeat"], row["label"]) == ("validation", run["repeat"], "covid")
        ]
        own = np.sort(apply(predictions.probabilities[rows], temperature)[:, 0])
        assert run["threshold"] == pytest.approx(own[3], rel=1e-5)


def test_of_two_classes_calibration_moves_no_decision_by_threshold(table):
    plain = ask(table, positive="covid", classes="covid,normal", sensitivity=0.9)[""]
    found = ask(table, positive="covid", classes="covid,normal", sensitivity=0.9, calibrated=True)[""]
    assert found["confusion"] == plain["confusion"]


def test_too_few_positive_validation_images_are_refused(table):
    with pytest.raises(InputError, match="expected 99 validation images of covid or more, found 40 in r0f0"):
        ask(table, positive="covid", sensitivity=0.99)


@pytest.mark.parametrize(
    ("others", "told"),
    [
        ({"sensitivity": 0.9}, "--sensitivity: expected --positive with it"),
        ({"prevalence": "0.1"}, "--prevalence: expected --positive with it"),
        ({"sensitivity": 95.0, "positive": "covid"}, "expected a share above 0 and below 1 such as 0.95, found 95"),
        ({"prevalence": "5%", "positive": "covid"}, "expected shares above 0 and below 1 such as 0.05, found '5%'"),
        ({"prevalence": "1", "positive": "covid"}, "found '1'"),
        ({"sensitivity": 0.9, "positive": "x"}, "--positive: expected one of covid, normal, pneumonia"),
        ({"calibrated": True, "subset": "validation"}, "--calibrated: expected another subset to evaluate"),
        ({"abstain": True, "confusion_matrix": "m.csv", "inputs": ()}, "cannot be combined with --abstain"),
    ],
)
def test_what_does_not_go_together(table, others, told):
    inputs = others.pop("inputs", (table,))
    with pytest.raises(UsageError, match=told):
        ask(*inputs, **others)


def test_prevalences_are_taken_once_and_in_order():
    assert parse_prevalences(" 0.1, 0.01,0.1,") == (0.1, 0.01)
    assert parse_prevalences(None) == ()


def test_validation_is_known_within_splits_too(table, predictions, tmp_path):
    rows = [
        {"image_id": row["image_id"], "repeat": row["repeat"], "fold": row["fold"], "subset": row["subset"]}
        for row in predictions.rows
        if row["image_id"] != "im0000"
    ]
    write_table(tmp_path / "splits.csv", list(rows[0]), rows)
    found = ask(table, calibrated=True, within=tmp_path / "splits.csv")[""]
    assert found["images"] == 89
    assert [run["images"] for run in found["temperature"]] == [120, 120]


def test_the_folder_holds_tables_and_pictures(table, tmp_path, listener):
    settings = Settings(out=tmp_path / "out", report=listener)
    asked = {"positive": "covid", "sensitivity": 0.9, "prevalence": "0.01,0.1", "abstain": True, "calibrated": True}
    found = ask(table, settings=settings, **asked)
    assert {"coverage.png", "decision_curve.png"} <= {path.name for path in settings.out.iterdir()}
    assert read_metrics(settings.out / "metrics.json") == found
    text = (settings.out / "tables.md").read_text()
    for title in ("Operating point: covid", "Least confident images left undecided", "Net benefit of acting on covid"):
        assert f"## {title}" in text
    assert "![coverage](coverage.png)" in text
    assert "abstention,0.9,coverage," in (settings.out / "metrics.csv").read_text()
    assert ask(table, settings=settings, **asked) == found
    assert listener.said[-1].endswith("up to date, nothing to do")
    made = json.loads((settings.out / "run.json").read_text())["options"]
    assert made["prevalence"]["value"] == "0.01,0.1"
    others = ask(table, settings=settings, **{**asked, "sensitivity": 0.8})
    assert others[""]["thresholds"]["sensitivity"] == 0.8


def test_counts_have_an_operating_point(tmp_path):
    (tmp_path / "m.csv").write_text(",normal,covid\nnormal,851,16\ncovid,17,499\n")
    found = ask(confusion_matrix=tmp_path / "m.csv", positive="covid", prevalence="0.05")[""]
    assert found["operating"][0]["counts"] == {"tp": 499, "fn": 17, "fp": 16, "tn": 851}
    assert set(found["operating"][0]["at_prevalence"]) == {"0.05"}
    assert "operating" not in ask(confusion_matrix=tmp_path / "m.csv")[""]


def test_what_fuse_writes_keeps_its_validation_rows(joint_runs, table, tmp_path):
    first, second = joint_runs
    fuse_joint(JointOptions((first, second)), Settings(out=tmp_path / "joint.csv"))
    fuse_mean(MeanOptions((table, table)), Settings(out=tmp_path / "mean.csv"))
    assert {row["subset"] for row in read_predictions(tmp_path / "joint.csv").rows} == {"test", "validation"}
    joint = ask(tmp_path / "joint.csv", calibrated=True)[""]["temperature"]
    assert all("validation images; 50 are needed" in run["reason"] for run in joint)
    assert (
        ask(tmp_path / "mean.csv", calibrated=True)[""]["temperature"] == ask(table, calibrated=True)[""]["temperature"]
    )


def test_twins_are_calibrated_after_their_fusion(make_predictions, tmp_path):
    rows, values = [], []
    for subset, source in (
        ("test", make_predictions(60, ("P", "N"))),
        ("validation", make_predictions(80, ("P", "N"), seed=1)),
    ):
        for row, share in zip(source.rows, source.probabilities, strict=True):
            name = f"{subset[0]}{row['image_id']}"
            for generator in ("P", "N"):
                own = {**row, "image_id": f"{name}_{generator}", "parent_id": name, "generator": generator}
                own |= {"subset": subset, "patient_id": f"{subset}{row['patient_id']}"}
                rows.append({**own, "label": f"{row['label']}@{generator}", "predicted": ""})
                values.append([share[0] * 0.7, share[0] * 0.3, share[1] * 0.6, share[1] * 0.4])
    twins = replace(
        make_predictions(),
        classes=["P@P", "P@N", "N@P", "N@N"],
        rows=rows,
        probabilities=np.array(values),
        columns=list(rows[0]),
    )
    write_predictions(tmp_path / "twins.csv", twins)
    fuse_twins(TwinsOptions((tmp_path / "twins.csv",), positive="P"), Settings(out=tmp_path / "fused.csv"))
    (run,) = ask(tmp_path / "fused.csv", calibrated=True)[""]["temperature"]
    assert (run["images"], run["reason"]) == (80, None)
    assert run["nll_after"] <= run["nll_before"]
