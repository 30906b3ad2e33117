import json
from dataclasses import replace
from pathlib import Path

import pytest

from cxrtool.auditing.part import ALARM, CLEAR, WARNING, Finding, Part
from cxrtool.commands.report.opening import APART, INTERNAL, NEW_IMAGES, TWINS, UNKNOWN_TRAINING, answers
from cxrtool.commands.report.study import Source, Study
from cxrtool.data.splitting.splits import Splits
from cxrtool.evaluation.sheet import Sheet
from cxrtool.evaluation.tables import NO_AUDIT
from cxrtool.flow.audits import Audit


def measure(value, low=None, high=None):
    return {"value": value, "low": low, "high": high, "reason": None}


ROWS = [
    {"image_id": "a", "label": "covid", "patient_id": "p", "source": "north", "age": "40", "sex": "F"},
    {"image_id": "b", "label": "covid", "patient_id": "p", "source": "north", "age": "", "sex": ""},
    {"image_id": "c", "label": "normal", "patient_id": "q", "source": "south", "age": "60", "sex": ""},
]

MADE = {"argv": ["cxrtool", "train"], "started": "2030-01-02T"}
STUDY = Study([], ROWS, ROWS, "", Splits({}), [], None, MADE, {}, {})


def summary(classes=("covid", "normal"), positive="covid", **others):
    per_class = {
        name: {
            "support": max(3 - k, 1),
            "sensitivity": measure(0.5 + k / 20, 0.4, 0.9),
            "specificity": measure(0.75),
            "auc": measure(0.8, 0.7, 0.9),
        }
        for k, name in enumerate(classes)
    }
    return {
        "classes": list(classes),
        "positive": positive,
        "images": 3,
        "patients": 2,
        "runs": 1,
        "patients_known": True,
        "overall": {name: measure(0.6, 0.5, 0.7) for name in ("balanced_accuracy", "accuracy", "macro_auc")},
        "per_class": per_class,
        "interval": {"confidence": 0.95},
        **others,
    }


def audit(*parts):
    content = {"about": "", "headline": [], "parts": {part.name: part.as_json() for part in parts}}
    return Audit(Path("audit"), content)


def test_patients_are_counted_once():
    _, whom, *_ = answers(STUDY, {"": summary()})
    assert list(whom.lines) == [
        "3 test images of 2 patients: 3 covid (1 patient), 2 normal (1 patient).",
        "Sources: north (2), south (1). Age 40 to 60 years (median 50), known for 2 of 2 patients. "
        "Sex: 1 female, 0 male, known for 1 of 2 patients.",
    ]
    unknown = [{**row, "patient_id": "", "source": "north"} for row in ROWS]
    _, whom, *_ = answers(replace(STUDY, tested=unknown), {"": summary(patients_known=False)})
    assert whom.lines[0] == "3 test images, patients not known: 3 covid, 2 normal."
    assert whom.lines[1].startswith("Source: north. Age 40 to 60 years (median 50), known for 2 of 3 images.")


def test_the_main_numbers_and_the_counts():
    counts = {"tp": 7.0, "fn": 2.0, "fp": 1.0, "tn": 4.0}
    good = answers(STUDY, {"": summary(operating=[{"counts": counts, "rule": "most probable class"}])})[2]
    shown = [(figure.name, figure.value, figure.interval) for figure in good.figures]
    assert shown[:2] == [("sensitivity for covid", "0.50", "(0.40-0.90)"), ("specificity", "0.75", "no interval")]
    assert good.lines[0] == (
        "Of 9 images of covid, 7 were recognised and 2 were missed; of 5 other images, 1 was wrongly predicted covid."
    )
    # Means over repeats are no counts.
    halves = answers(STUDY, {"": summary(operating=[{"counts": {**counts, "tp": 7.5}, "rule": ""}])})[2]
    assert len(halves.lines) == 1


@pytest.mark.parametrize(("count", "start"), [(3, "Sensitivity for each class: a 0.50"), (9, "Lowest and highest")])
def test_without_a_positive_class_each_has_its_sensitivity(count, start):
    good = answers(STUDY, {"": summary("abcdefghi"[:count], None)})[2]
    assert good.lines[0].startswith(start)
    assert [figure.name for figure in good.figures] == ["balanced accuracy", "accuracy", "AUC, mean over the classes"]


def test_what_is_not_known_is_stated():
    trust = answers(STUDY, {"": summary()})[-1]
    assert trust.marks == [("unknown", NO_AUDIT), ("unknown", INTERNAL)]
    trust = answers(replace(STUDY, made={}), {"": summary()})[-1]
    assert ("unknown", UNKNOWN_TRAINING) in trust.marks


def test_sources_that_were_tested_by_models_of_the_others_are_a_note():
    splits = Splits({}, made_by=["split --leave-out source --seed 0"])
    trust = answers(replace(STUDY, splits=splits), {"": summary()})[-1]
    assert ("note", APART) in trust.marks
    assert INTERNAL not in [text for _, text in trust.marks]
    other = Splits({}, made_by=["split --leave-out source", "split --folds 3"])
    assert not replace(STUDY, splits=other).sources_apart()


def test_the_gravest_findings_are_shown_and_the_others_folded():
    found = audit(
        Part("leakage", "L", {}, [Finding(CLEAR, "no leak")]),
        Part("x", "X", {}, [Finding(WARNING, "w"), Finding(ALARM, "one"), Finding(ALARM, "two"), Finding(CLEAR, "c")]),
    )
    trust = answers(replace(STUDY, audit=found), {"": summary()})[-1]
    assert trust.lines[0].startswith("Audit of these images: 2 alarms and 1 warning. An accuracy measured")
    assert trust.marks == [("alarm", "one"), ("alarm", "two"), ("clear", "no leak"), ("unknown", INTERNAL)]
    assert trust.more == [("warning", "w")]


def test_an_external_test_in_the_audit_counts():
    tested = Part("external_model", "E", {}, [Finding(CLEAR, "holds elsewhere")], [Sheet("", ["a"], [["b"]], [])])
    trust = answers(replace(STUDY, audit=audit(tested)), {"": summary()})[-1]
    assert trust.marks == [("clear", "holds elsewhere")]


def test_sets_side_by_side_each_have_an_answer():
    study = replace(STUDY, by_name={"inside": ROWS[:2], "outside": ROWS[2:]})
    found = answers(study, {"inside": summary(), "outside": summary()})
    assert [one.question for one in found][2:4] == ["How good: inside", "How good: outside"]
    assert [line.partition(":")[0] for line in found[1].lines] == ["inside", "outside"]
    assert found[0].lines[1] == "2 sets of predictions are side by side: inside (), outside ()."
    assert "In brackets" not in " ".join(found[2].lines)
    assert found[-1].marks[-1] == ("note", "2 sets were tested side by side: inside, outside.")


def test_twins_are_a_warning():
    twins = [{**row, "parent_id": row["image_id"], "generator": "P"} for row in ROWS]
    trust = answers(replace(STUDY, tested=twins), {"": summary()})[-1]
    assert ("warning", TWINS) in trust.marks


def test_answers_about_new_images_name_the_model_and_are_no_unknown_training(tmp_path):
    made = {"command": "evaluate", "argv": ["cxrtool", "evaluate"], "options": {"inputs": {"value": ["run", "new"]}}}
    (tmp_path / "run.json").write_text(json.dumps(made))
    source = Source("", tmp_path, None, [], [tmp_path / "predictions.csv"])
    marks = answers(replace(STUDY, made={}, sources=[source]), {"": summary()})[-1].marks
    assert ("note", NEW_IMAGES.format("run")) in marks
    assert ("unknown", UNKNOWN_TRAINING) not in marks
    (tmp_path / "run.json").write_text(json.dumps({**made, "argv": [*made["argv"], "--allow-leakage"]}))
    assert source.asked == ""
    (tmp_path / "a.run.json").write_text(
        json.dumps({**made, "command": "predict", "options": {"model": {"value": "m"}}})
    )
    assert replace(source, path=tmp_path / "a.csv").asked == "m"
