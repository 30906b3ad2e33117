"""The probes: what is planted is found, what is not planted is not."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from cxrtool.auditing import sources, transfer
from cxrtool.auditing.catalogue import NO_LUNG, PROBES, Probe
from cxrtool.auditing.part import ALARM, CLEAR, NOTE, UNKNOWN, WARNING, Part
from cxrtool.auditing.probes import examine
from cxrtool.auditing.views import View
from cxrtool.data.tables.predictions import Predictions
from cxrtool.evaluation.scores import scores_of

FEW = {"permutations": 100, "resamples": 200}


def planted(pictures, where, grey=0.15):
    """A class of its own grey in a region of the picture."""
    thumbs = pictures.thumbs.copy()
    sick = np.array([label == "covid" for label in pictures.labels])
    thumbs[np.ix_(sick, *(np.arange(64)[part] for part in where))] += grey
    return replace(pictures, thumbs=thumbs.clip(0, 1))


def model_of(pictures, folds, wrong=0):
    """A model that is right but for every `wrong`-th image."""
    rows, probabilities, classes = [], [], pictures.classes
    for fold in folds:
        for place in fold.subsets["test"]:
            row = pictures.rows[place]
            truth = classes.index(row["label"])
            called = 1 - truth if wrong and place % wrong == 0 else truth
            kept = {name: row[name] for name in ("image_id", "label", "patient_id")}
            rows.append(
                {**kept, "repeat": fold.repeat, "fold": fold.fold, "subset": "test", "predicted": classes[called]}
            )
            probabilities.append(np.eye(2)[called] * 0.8 + 0.1)
    return scores_of(Predictions(list(classes), rows, np.array(probabilities)))


def levels(part):
    return [finding.level for finding in part.findings]


def test_a_planted_border_raises_an_alarm_and_is_compared_with_the_model(make_pictures, make_folds, tmp_path):
    pictures = planted(make_pictures(), (slice(0, 3), slice(None)))
    folds = make_folds(pictures, 3, repeats=2)
    model = model_of(pictures, folds, wrong=10)
    part = examine(pictures, folds, model=model, folder=tmp_path, **FEW)
    probes = part.content["probes"]
    assert [name for name, probe in probes.items() if probe["raised"] and probe["level"] == ALARM] == [
        "border",
        "centre-blacked",
        "lungs-erased",
    ]
    alarms = [finding.text for finding in part.findings if finding.level == ALARM]
    assert len(alarms) == 1
    assert alarms[0].startswith("The border alone reaches 1.00, the model 0.90 (balanced accuracy; guessing gives 0.50")
    assert not probes["lungs-only"]["raised"]
    assert not probes["mask-shape"]["raised"]
    assert probes["thumbnail"]["raised"]
    # The model's figure is that of its own answers, and the difference that of the two.
    assert part.content["model"]["balanced_accuracy"]["value"] == pytest.approx(
        balanced_accuracy_score(model.truth, model.predicted)
    )
    border = probes["border"]
    gap = border["balanced_accuracy"]["value"] - part.content["model"]["balanced_accuracy"]["value"]
    assert border["difference"]["value"] == pytest.approx(gap)
    assert border["difference"]["low"] <= gap <= border["difference"]["high"]
    assert border["difference"]["method"] == "paired patient bootstrap"
    assert border["share"]["value"] == pytest.approx(
        (border["balanced_accuracy"]["value"] - 0.5) / (part.content["model"]["balanced_accuracy"]["value"] - 0.5)
    )
    assert {name for name, _ in part.pictures} == {"probes.png", "probe_inputs.png"}
    assert all((tmp_path / name).stat().st_size > 5000 for name, _ in part.pictures)
    again = json.loads(json.dumps(part.as_json(), allow_nan=False))
    assert Part.from_json(part.name, again).as_json() == part.as_json()


def test_where_nothing_is_planted_nothing_is_found(make_pictures, make_folds):
    pictures = make_pictures()
    part = examine(pictures, make_folds(pictures), **FEW)
    assert levels(part) == [CLEAR, CLEAR]
    assert "no probe separates the classes better than chance" in part.findings[0].text
    assert part.findings[1].text.startswith("All files have one size and type")
    assert part.content["permuted-labels"]["mean"] == pytest.approx(0.5, abs=0.03)
    assert part.content["probes"]["border"]["difference"]["reason"] == "no model was given"
    assert [row[0] for row in part.sheets[0].rows[1:-1]] == [probe.title for probe in PROBES.values()]


def test_what_lies_in_the_lungs_alone_raises_no_alarm(make_pictures, make_folds):
    pictures = planted(make_pictures(), (slice(22, 34), slice(15, 22)))
    part = examine(pictures, make_folds(pictures), **FEW)
    assert ALARM not in levels(part)
    notes = [finding.text for finding in part.findings if finding.level == NOTE]
    assert len(notes) == 1
    assert "may be the disease itself" in notes[0]


def test_files_of_another_size_raise_an_alarm(make_pictures, make_folds):
    pictures = make_pictures()
    width = np.array([300 if label == "covid" else 320 for label in pictures.labels])
    part = examine(replace(pictures, width=width), make_folds(pictures), names=["size-and-shape", "border"], **FEW)
    assert levels(part) == [ALARM]
    assert part.findings[0].text.startswith("Size and type of the files alone reach 1.00 (balanced accuracy;")


def test_the_outline_and_what_the_manifest_says_warn(make_pictures, make_folds):
    pictures = make_pictures()
    lungs = pictures.lungs.copy()
    lungs[[i for i, label in enumerate(pictures.labels) if label == "covid"], 40:] = 0
    rows = tuple({**row, "view": "AP" if row["label"] == "covid" else "PA"} for row in pictures.rows)
    pictures = replace(pictures, lungs=lungs, rows=rows)
    part = examine(pictures, make_folds(pictures), names=["border", "mask-shape", "metadata"], **FEW)
    assert levels(part) == [WARNING, WARNING, CLEAR]


def test_permuted_labels_are_learnt_where_the_splits_leak(make_pictures, make_folds):
    pictures = make_pictures(per_patient=2)
    # Two nearly equal pictures of each patient, the one for training, the other for test.
    thumbs = np.repeat(pictures.thumbs[::2], 2, axis=0) + pictures.thumbs * 0.05
    fold = replace(make_folds(pictures)[0], subsets={"train": list(range(0, 120, 2)), "test": list(range(1, 120, 2))})
    part = examine(replace(pictures, thumbs=thumbs), [fold], names=["border", "thumbnail"], **FEW)
    assert part.content["permuted-labels"]["mean"] == pytest.approx(1)
    assert any("are in training and in test" in f.text for f in part.findings if f.level == WARNING)


def test_a_model_tested_on_other_images_is_not_compared(make_pictures, make_folds):
    pictures = make_pictures()
    folds = make_folds(pictures)
    other = make_folds(pictures, seed=5)
    part = examine(pictures, folds, model=model_of(pictures, other), names=["border"], **FEW)
    assert part.content["model"]["balanced_accuracy"]["value"] is None
    assert "not the same split" in part.content["probes"]["border"]["difference"]["reason"]
    assert any("cannot be compared" in note for note in part.sheets[0].notes)


def test_a_model_that_lacks_images_is_compared_on_those_it_has(make_pictures, make_folds):
    pictures = planted(make_pictures(), (slice(0, 3), slice(None)))
    folds = make_folds(pictures)
    model = model_of(pictures, folds, wrong=10)
    model = model.where(np.arange(len(model)) % 5 != 0)
    part = examine(pictures, folds, model=model, names=["border"], **FEW)
    assert part.content["model"]["balanced_accuracy"]["value"] == pytest.approx(
        balanced_accuracy_score(model.truth, model.predicted)
    )
    assert any("lacks" in note for note in part.sheets[0].notes)


def test_pictures_without_lungs_leave_probes_unknown(make_pictures, make_folds):
    pictures = replace(make_pictures(), lungs=None, masks="the manifest has no masks of the lungs")
    part = examine(pictures, make_folds(pictures), **FEW)
    unknown = [finding.text for finding in part.findings if finding.level == UNKNOWN]
    assert unknown == [
        "Probes that could not be run: lungs erased, outline of the lungs, lungs only (the manifest has no masks of "
        "the lungs)."
    ]


def test_one_class_or_no_fold_is_unknown(make_pictures, make_folds):
    pictures = make_pictures()
    assert levels(examine(pictures, [])) == [UNKNOWN]
    alike = replace(pictures, rows=tuple({**row, "label": "covid"} for row in pictures.rows))
    assert levels(examine(alike, make_folds(pictures))) == [UNKNOWN]


def test_the_same_seed_gives_the_same_part_whatever_else_is_asked(make_pictures, make_folds):
    pictures = planted(make_pictures(60), (slice(0, 3), slice(None)), grey=0.02)
    folds = make_folds(pictures)
    one, two = (examine(pictures, folds, names=["border", *more], seed=3, **FEW) for more in ([], ["mask-shape"]))
    assert one.content["probes"]["border"] == two.content["probes"]["border"]


def test_a_new_probe_is_one_entry_of_the_catalogue(make_pictures, make_folds, tmp_path, monkeypatch):
    def corner(pictures):
        shown = np.zeros_like(pictures.thumbs)
        shown[:, :8, :8] = pictures.thumbs[:, :8, :8]
        return View(shown.reshape(len(shown), -1), shown)

    probe = Probe(
        "corner",
        "upper left corner",
        "the upper left corner alone",
        corner,
        NO_LUNG,
        ALARM,
        external=4,
        source="corner",
    )
    monkeypatch.setitem(PROBES, "corner", probe)
    pictures = planted(make_pictures(), (slice(0, 6), slice(0, 6)))
    part = examine(pictures, make_folds(pictures), folder=tmp_path, **FEW)
    assert list(part.content["probes"])[:5] == [
        "size-and-shape",
        "border",
        "centre-blacked",
        "lungs-erased",
        "corner",
    ]
    assert part.content["probes"]["corner"]["raised"]
    assert "the upper left corner alone 1.00" in part.findings[0].text
    assert "upper left corner" in [row[0] for row in part.sheets[0].rows]
    assert "for the first five, the only ones that can raise an alarm" in part.sheets[0].notes[1]
    assert {name for name, _ in part.pictures} == {"probes.png", "probe_inputs.png"}
    seen = {entry["seen"] for entry in sources.examine({"given": pictures}, **FEW).content["answers"]}
    assert seen == {"whole image", "lungs alone", "corner"}
    there = replace(pictures, rows=tuple({**row, "patient_id": "x" + row["patient_id"]} for row in pictures.rows))
    answers = transfer.external(pictures, there, resamples=200).content["answers"]
    assert list(dict.fromkeys(entry["seen"] for entry in answers)) == ["thumbnail", "border", "lungs-only", "corner"]


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["border", "centre-blacked", "thumbnail"], "; for the first two, the only ones that can raise an alarm"),
        (["border", "thumbnail"], "permutations of the labels among patients stay."),
        (["thumbnail", "border", "centre-blacked"], "; for border, centre blacked out, the only ones that can"),
    ],
)
def test_the_table_says_of_which_probes_chance_is_that_of_the_best(make_pictures, make_folds, names, told):
    pictures = make_pictures(40)
    part = examine(pictures, make_folds(pictures), names=names, **FEW)
    assert told in part.sheets[0].notes[1]
