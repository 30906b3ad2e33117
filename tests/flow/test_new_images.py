import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from cxrtool.cli.main import run as cxrtool
from cxrtool.commands.train import train
from cxrtool.commands.train.options import TrainOptions
from cxrtool.data.tables.manifest import read_table, write_table
from cxrtool.errors import InputError, UsageError
from cxrtool.flow.new_images import find_new_images, guess, is_images, match_labels, parse_relabel
from cxrtool.flow.settings import Settings

SIDE = 24
HALVES = (slice(0, SIDE // 2), slice(SIDE // 2, SIDE))


def draw(folder: Path, labels, count=6, first=500):
    """Pictures of the kind of a study in a folder for each class; the first class is bright on the left."""
    for number, (label, half) in enumerate(zip(labels, HALVES, strict=True)):
        (folder / label).mkdir(parents=True)
        for index in range(count):
            rng = np.random.default_rng(first + 100 * number + index)
            pixels = rng.integers(0, 100, (SIDE, SIDE + 4), np.uint8)
            # One picture of each class looks like the other class.
            pixels[:, HALVES[1 - number] if index == 0 else half] += 120
            cv2.imwrite(str(folder / label / f"{number}{index}.png"), pixels)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory, make_small_study):
    """A study, and a run of two folds on what `prepare --size 20` made of it."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("place")
    study = make_small_study(folder)
    line = ("prepare", study.folder / "manifest.csv", "--size", 20, "--fit", "pad", "--workers", 1, "-q")
    assert cxrtool([str(part) for part in (*line, "-o", folder / "prepared")]) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cxrtool.training.curves.draw_history", lambda path, history, title: path.write_bytes(b"png"))
        told = TrainOptions.of(
            manifest=folder / "prepared", splits=study.splits, model="thumbnail", epochs=30, batch_size=8
        )
        train(told, Settings(cache=folder / "cache", out=folder / "run"))
    return folder


@pytest.fixture
def new(tmp_path):
    return draw(tmp_path / "new", ("covid", "normal"))


def metrics(outcome):
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


QUICK = ("--threads", "1", "--workers", "1")
JSON = ("--format", "json", *QUICK)


def test_one_command_gives_what_predict_and_evaluate_give(cxr, place, new, tmp_path):
    assert cxr("predict", place / "run", new, "-o", tmp_path / "answers.csv", *QUICK).code == 0
    separate = metrics(cxr("evaluate", tmp_path / "answers.csv", "--format", "json"))
    outcome = cxr("evaluate", place / "run", new, *JSON)
    together = metrics(outcome)
    assert together == separate
    # One picture of each class looks like the other one.
    assert together["confusion"] == [[5, 1], [1, 5]]
    assert together["overall"]["accuracy"]["value"] == pytest.approx(10 / 12)
    assert outcome.err.splitlines()[0] == (
        f"{new}: recognised as a folder with a subfolder for each class; images: covid 6, normal 6; "
        f"predicted by the mean of 2 models of {place / 'run'}"
    )


def test_raw_and_prepared_images_give_the_same(cxr, place, new, tmp_path):
    line = ("--size", 20, "--fit", "pad", "--workers", 1, "-q", "-o", tmp_path / "prepared")
    assert cxr("prepare", new, *line).code == 0
    prepared = cxr("evaluate", place / "run" / "r0f0", tmp_path / "prepared", *JSON)
    assert "recognised as the images of `cxrtool prepare`" in prepared.err
    raw = metrics(cxr("evaluate", place / "run" / "r0f0", new, *JSON))
    assert metrics(prepared)["confusion"] == raw["confusion"] == [[5, 1], [1, 5]]
    assert metrics(prepared)["overall"] == raw["overall"]


def test_a_table_with_patients_and_groups(cxr, place, new, tmp_path):
    files = sorted(new.rglob("*.png"))
    rows = [
        {
            "file": str(path.relative_to(tmp_path)),
            "finding": path.parent.name if index else "",
            "patient": str(index // 2),
            "severity": ("mild", "severe")[index % 2],
        }
        for index, path in enumerate(files)
    ]
    write_table(tmp_path / "table.csv", list(rows[0]), [*rows, {**rows[1], "file": ""}])
    outcome = cxr("evaluate", place / "run", tmp_path / "table.csv", *JSON, "--by", "severity", "-o", tmp_path / "out")
    found = metrics(outcome)
    lines = outcome.err.splitlines()
    assert lines[0].startswith(
        f"{tmp_path / 'table.csv'}: recognised as a table of images; images: covid 5, normal 6; "
        "1 without a label excluded; predicted by"
    )
    assert (found["images"], found["patients"]) == (11, 6)
    assert found["per_group"]["severity"]["severe"]["images"] == 6
    assert [row["reason"] for row in read_table(tmp_path / "out" / "rejects.csv").rows] == [
        "this row of the table has no file"
    ]


def test_columns_of_other_names_are_named(cxr, place, new, tmp_path):
    rows = [{"Bild": f"{path.parent.name}/{path.name}", "Befund": path.parent.name} for path in new.rglob("*.png")]
    write_table(new / "table.csv", list(rows[0]), rows)
    call = ("evaluate", place / "run", new / "table.csv", *JSON, "--id-column", "Bild")
    assert metrics(cxr(*call, "--label-column", "Befund"))["confusion"] == [[5, 1], [1, 5]]
    without = cxr(*call)
    assert without.code == 1
    assert without.err.splitlines()[0].endswith("found none among 12; other columns: Befund")
    assert "--label-column COLUMN" in without.err
    folder = cxr("evaluate", place / "run", new, "--label-column", "Befund")
    assert (folder.code, "--label-column: expected a table of images" in folder.err) == (2, True)


def test_predictions_of_another_tool_beside_a_run_are_no_images(cxr, place, tmp_path):
    rows = [{"filename": f"{k}.png", "label": ("covid", "normal")[k % 2], "y_score": str(k / 10)} for k in range(8)]
    write_table(tmp_path / "other.csv", list(rows[0]), rows)
    assert not is_images(tmp_path / "other.csv")
    found = metrics(
        cxr("evaluate", f"a={place / 'run'}", f"b={tmp_path / 'other.csv'}", "--positive", "covid", "--format", "json")
    )
    assert set(found["sets"]) == {"a", "b"}


def test_a_manifest_is_recognised(cxr, place, new, tmp_path):
    rows = [
        {"image_id": path.stem, "path": str(path), "label": path.parent.name} for path in sorted(new.rglob("*.png"))
    ]
    write_table(tmp_path / "list.csv", list(rows[0]), rows)
    outcome = cxr("evaluate", place / "run", tmp_path / "list.csv", *JSON)
    assert "list.csv: recognised as a manifest; images: covid 6, normal 6" in outcome.err
    assert metrics(outcome)["confusion"] == [[5, 1], [1, 5]]


def test_the_folder_has_predictions_for_compare_and_report(cxr, place, new, tmp_path):
    call = ("evaluate", place / "run", new, *JSON, "-o", tmp_path / "out")
    first = metrics(cxr(*call))
    rows = read_table(tmp_path / "out" / "predictions.csv").rows
    assert len(rows) == 12
    assert sum(row["label"] == row["predicted"] for row in rows) == 10
    assert metrics(cxr("evaluate", tmp_path / "out", "--format", "json")) == first
    again = cxr(*call)
    assert "up to date, nothing to do" in again.err
    assert metrics(again) == first
    compared = cxr("compare", f"new={tmp_path / 'out'}", f"own={place / 'run'}", "--format", "csv")
    assert compared.code == 0, compared.err
    assert cxr("report", tmp_path / "out", "--no-heatmaps", *QUICK, "-o", tmp_path / "page.html").code == 0
    # A training says nothing about these images.
    assert not (tmp_path / "out" / "repetitions.csv").exists()
    cv2.imwrite(str(new / "covid" / "more.png"), np.full((SIDE, SIDE), 90, np.uint8))
    assert metrics(cxr(*call))["images"] == 13


def test_labels_that_differ_in_case_and_signs_match(cxr, place, tmp_path):
    new = draw(tmp_path / "new", ("CO_VID", "Nor-mal"))
    outcome = cxr("evaluate", place / "run", new, *JSON)
    assert metrics(outcome)["confusion"] == [[5, 1], [1, 5]]
    assert "labels: CO_VID was read as covid (6 images), Nor-mal was read as normal (6 images)" in outcome.err


def test_unknown_labels_are_answered_with_the_line_to_paste(cxr, place, tmp_path):
    new = draw(tmp_path / "new", ("COVID-19", "No_findings"))
    refused = cxr("evaluate", place / "run", new, *QUICK)
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.splitlines() == [
        f"cxrtool evaluate: {new}: expected labels among covid, normal, found COVID-19 (6 images), "
        "No_findings (6 images)",
        "  add (a guess, check it): --relabel COVID-19=covid,No_findings=normal",
    ]
    pasted = refused.err.splitlines()[1].split(": ")[1].split()
    assert metrics(cxr("evaluate", place / "run", new, *JSON, *pasted))["confusion"] == [[5, 1], [1, 5]]
    twice = ("--relabel", "No_findings=normal", "--relabel", "COVID-19=covid")
    assert metrics(cxr("evaluate", place / "run", new, *JSON, *twice))["confusion"] == [[5, 1], [1, 5]]
    less = metrics(cxr("evaluate", place / "run", new, *JSON, "--relabel", "No_findings=normal,COVID-19="))
    assert (less["images"], less["confusion"]) == (6, [[0, 0], [1, 5]])


def test_images_of_the_training_are_refused(cxr, place):
    for source in (place / "prepared", place / "study" / "manifest.csv"):
        refused = cxr("evaluate", place / "run", source, *QUICK)
        assert refused.code == 4
        assert "24 of 24 images, or their patients, were used in training" in refused.err
    assert cxr("evaluate", place / "run", place / "prepared", *JSON, "--allow-leakage").code == 0


def test_a_patient_of_the_training_in_a_raw_table_is_refused(cxr, place, new):
    # Its name is that of the folder, as `prepare` takes it.
    rows = [{"path": "new/covid/00.png", "label": "covid", "patient_id": "p:000", "source": "study"}]
    rows += [{**rows[0], "path": "new/normal/10.png", "label": "normal", "patient_id": "x"}]
    known = {row["patient_id"] for row in read_table(place / "prepared" / "manifest.csv").rows}
    rows[0]["source"], rows[0]["patient_id"] = sorted(known)[0].split(":", 1)
    write_table(new.parent / "table.csv", list(rows[0]), rows)
    refused = cxr("evaluate", place / "run", new.parent / "table.csv", *QUICK)
    assert refused.code == 4
    assert "1 of 2 images, or their patients" in refused.err


def test_an_unreadable_image_is_a_line(cxr, place, new, tmp_path):
    (new / "covid" / "broken.png").write_bytes(b"no picture")
    outcome = cxr("evaluate", place / "run", new, *JSON)
    assert metrics(outcome)["images"] == 12
    assert f"warning: {new / 'covid' / 'broken.png'}: " in outcome.err
    strict = cxr("evaluate", place / "run", new, *JSON, "--strict", "-o", tmp_path / "out")
    assert strict.code == 3
    assert len(read_table(tmp_path / "out" / "rejects.csv").rows) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("{new}",), 2, "expected a run or predictions, found images and no model for them"),
        (("{run}", "{run}", "{new}"), 2, "expected one model and images, found 2 models"),
        (("a={run}", "b={new}"), 2, "expected predictions where inputs have names, found images"),
        (("{run}", "--relabel", "a=b"), 2, "--relabel: expected images with labels for a model, found none"),
        (("{run}", "{new}", "--relabel", "covid"), 2, "--relabel: expected OLD=NEW"),
        (("{run}", "{new}", "--relabel", "covid=cvid"), 2, "expected one of covid, normal, found 'cvid'; did you mean"),
        (("{run}", "{new}/covid"), 1, "expected images with labels, found none with one among 6"),
        (("{run}", "{new}", "--relabel", "covid=,normal="), 2, "found that all 12 are excluded"),
    ],
)
def test_mistakes_are_told_in_two_lines(cxr, place, new, arguments, code, told):
    outcome = cxr("evaluate", *(text.format(run=place / "run", new=new) for text in arguments), *QUICK)
    assert (outcome.code, outcome.out) == (code, "")
    assert told in outcome.err
    assert len(outcome.err.splitlines()) == 2 or "did you mean" in told or code == 2


def test_images_that_are_named_one_by_one_have_the_class_of_their_folders(cxr, place, new, tmp_path, monkeypatch):
    folder = metrics(cxr("evaluate", place / "run", new, *JSON))
    images = sorted(new.glob("*/*.png"))
    assert len(images) == 12
    assert metrics(cxr("evaluate", place / "run", *images, *JSON))["confusion"] == folder["confusion"]
    (tmp_path / "list.txt").write_text("\n".join(map(str, images)))
    assert metrics(cxr("evaluate", place / "run", tmp_path / "list.txt", *JSON))["confusion"] == folder["confusion"]
    alone = metrics(cxr("evaluate", place / "run", images[0], *JSON))
    assert alone["images"] == 1
    shutil.copy(images[0], tmp_path / "first.png")
    refused = cxr("evaluate", place / "run", tmp_path / "first.png", *QUICK)
    assert refused.code == 2
    assert f"expected labels among covid, normal, found {tmp_path.name} (1 image)" in refused.err


def test_what_is_images(place, new, tmp_path, make_predictions):
    from cxrtool.data.tables.predictions import write_predictions

    write_predictions(tmp_path / "p.csv", make_predictions(6))
    assert [is_images(path) for path in (new, place / "prepared", place / "prepared" / "manifest.csv")] == [True] * 3
    others = (place / "run", place / "run" / "r0f0", tmp_path / "p.csv", tmp_path / "nowhere", place / "splits.csv")
    assert [is_images(path) for path in others] == [False] * 5
    # Splits in the folder of a step do not make it a run.
    shutil.copytree(place / "prepared", tmp_path / "prepared")
    shutil.copy(place / "splits.csv", tmp_path / "prepared" / "splits.csv")
    assert is_images(tmp_path / "prepared")
    assert find_new_images({"": [tmp_path / "p.csv", place / "run"]}) is None
    pair = (place / "run", new)
    assert find_new_images({"": list(pair)}) == find_new_images({"": list(pair[::-1])}) == (place / "run", [new])
    images = sorted((new / "covid").iterdir())
    assert find_new_images({"": [place / "run", *images]}) == (place / "run", images)


@pytest.mark.parametrize(
    ("label", "classes", "meant"),
    [
        ("COVID-19", ("covid", "normal"), "covid"),
        ("No Finding", ("covid", "normal"), "normal"),
        ("NonCOVID", ("covid", "normal"), "normal"),
        ("abnormal", ("covid", "normal"), "covid"),
        ("Viral Pneumonia", ("covid", "normal", "pneumonia"), "pneumonia"),
        ("healthy", ("P", "N"), "N"),
        ("nromal", ("covid", "normal"), "normal"),
        ("Cardiomegaly", ("covid", "normal"), ""),
    ],
)
def test_guesses(label, classes, meant):
    assert guess(label, classes) == meant


def test_labels_without_a_guess_and_with_blanks_can_be_pasted(settings):
    with pytest.raises(UsageError) as caught:
        match_labels({"No Finding": 2, "Effusion": 1}, ["covid", "normal"], {"Covid 19": "covid"}, "x", settings)
    assert caught.value.hint == (
        "add (a guess, check it): --relabel 'Covid 19=covid,Effusion=,No Finding=normal'  (nothing after = excludes "
        "the images)"
    )


def test_a_class_of_the_model_can_be_renamed_too(settings, listener):
    found = match_labels({"pneumonia": 1, "covid": 2}, ["covid", "pneumonia"], {"Pneumonia": "covid"}, "x", settings)
    assert found == {"pneumonia": "covid", "covid": "covid"}
    match_labels({"covid": 2}, ["covid"], {"sars": "covid"}, "x", settings)
    assert listener.warned == ["--relabel: no image of x has the label 'sars'"]


def test_contradictions_of_relabel_are_refused():
    with pytest.raises(UsageError, match="cannot become both"):
        parse_relabel(["a=b", "a=c"])


def test_an_incomplete_run_needs_partial(place, new, tmp_path, settings):
    from cxrtool.errors import IncompleteError
    from cxrtool.flow.evaluating import EvaluateOptions, evaluate

    shutil.copytree(place / "run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "r0f1")
    inputs = (str(tmp_path / "run"), str(new))
    with pytest.raises(IncompleteError, match="missing r0f1"):
        evaluate(EvaluateOptions(inputs), settings)
    assert evaluate(EvaluateOptions(inputs, partial=True, resamples=20), settings)[""]["images"] == 12
    with pytest.raises(InputError, match="none with one"):
        evaluate(EvaluateOptions((inputs[0], str(new / "covid")), partial=True), replace(settings, out=tmp_path / "o"))
