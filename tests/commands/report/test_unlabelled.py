import json
import re
import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from cxrtool.commands.predict import PredictOptions, predict
from cxrtool.commands.report import LARGEST
from cxrtool.commands.report.unlabelled import NO_LABELS, OWN, SHOWN
from cxrtool.commands.train import train
from cxrtool.commands.train.options import TrainOptions
from cxrtool.data.tables.manifest import read_manifest, read_table, write_manifest, write_table
from cxrtool.data.tables.predictions import read_predictions, write_predictions
from cxrtool.errors import InputError, UsageError
from cxrtool.flow.settings import Settings

SIDE = 24


@pytest.fixture(scope="module")
def place(tmp_path_factory, make_small_study):
    """A run of two folds, and new images: six of the kind that it knows, one dark, one inverted, one broken."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("place")
    study = make_small_study(folder)
    manifest = read_manifest(study.folder)
    sized = [{**row, "width": str(SIDE + 4), "height": str(SIDE)} for row in manifest.rows]
    write_manifest(study.folder / "manifest.csv", [*manifest.columns, "width", "height"], sized)
    given = TrainOptions(study.folder, study.splits, model="thumbnail", size=16, epochs=2, batch_size=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cxrtool.training.curves.draw_history", lambda path, history, title: path.write_bytes(b"png"))
        train(given, Settings(cache=folder / "cache", out=folder / "run", argv=["cxrtool", "train", "study"]))
    new = folder / "new"
    new.mkdir()
    for index in range(6):
        pixels = np.random.default_rng(100 + index).integers(0, 100, (SIDE, SIDE + 4), np.uint8)
        pixels[:, : SIDE // 2] += 120
        cv2.imwrite(str(new / f"{index}.png"), pixels)
    cv2.imwrite(str(new / "dark.png"), pixels // 8)
    cv2.imwrite(str(new / "huge.png"), cv2.resize(pixels, (280, 240)))
    (new / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n but no more")
    predict(
        PredictOptions(folder / "run", (str(new),)), Settings(out=folder / "answers.csv", argv=["cxrtool", "predict"])
    )
    return folder


@pytest.fixture
def answers(place, tmp_path):
    """A copy of the predictions with the files beside them, in a folder beside the run."""
    folder = place / tmp_path.name
    folder.mkdir()
    for path in place.glob("answers.*"):
        text = path.read_text()
        (folder / path.name).write_text(re.sub(r'(,|")(new/|run)', r"\1../\2", text) if path.suffix == ".csv" else text)
    made = json.loads((folder / "answers.run.json").read_text())
    made["model"] = "../run"
    made["members"] = [{**one, "folder": f"../{one['folder']}"} for one in made["members"]]
    (folder / "answers.run.json").write_text(json.dumps(made))
    return folder / "answers.csv"


@pytest.fixture
def make(make, monkeypatch):
    """Report without the figure and read the page."""
    monkeypatch.setattr("cxrtool.evaluation.plots.probabilities.draw_probabilities", _draw_nothing)
    return make


def _draw_nothing(classes, probabilities, known, shown, path):
    cv2.imwrite(str(path), np.zeros((8, 8), np.uint8))


def cells(text, heading):
    """The rows of the table below a heading."""
    table = re.search(rf">{re.escape(heading)}</h3>.*?<tbody>(.*?)</tbody>", text, re.DOTALL)[1]
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", table)]


def plain(text):
    return re.sub(r"<[^>]+>", "", text)


def test_the_page_has_the_predictions_and_no_accuracy_of_these_images(place, answers, make):
    text = make(answers)
    assert len(text.encode()) < LARGEST
    assert "<script" not in text
    assert not re.search(r'(src|href)="(?!data:|#)', text)
    assert NO_LABELS in text
    assert "cxrtool evaluate " in text
    table = read_predictions(answers)
    counts = {name: sum(row["predicted"] == name for row in table.rows) for name in table.classes}
    shown = {row[0]: row[1:4] for row in cells(text, "Predicted classes")}
    for k, (name, count) in enumerate(counts.items()):
        assert shown[name] == [str(count), f"{count / 8:.1%}", f"{table.probabilities[:, k].mean():.3f}"]
    best = table.probabilities.max(1)
    levels = cells(text, "Probability of the predicted class")
    assert sum(int(row[1]) for row in levels) == 8
    assert levels[-1][1] == str(int((best < 0.6).sum()))
    assert "mean of 2 models" in text
    # Each accuracy is of the run's own test images, and says so.
    for sentence in re.findall(r"[^.:>]*accuracy \d[^<]*", plain(text)):
        assert OWN.rstrip(": ") in plain(text)[: plain(text).index(sentence) + 1][-400:] or OWN in sentence
    assert text.count(OWN) == 2


def test_images_unlike_the_training_images_are_named_with_the_reason(answers, make):
    text = make(answers)
    reasons = {row[0]: row[1] for row in cells(text, "In what")}
    assert reasons["dark"] == "1"
    assert reasons["large"] == "1"
    listed = {row[0]: row[1] for row in cells(text, "Images, those with the most reasons first")}
    assert listed.keys() == {"dark", "huge"}
    assert "large: shorter side (pixels) 240, training 24 to 24" in listed["huge"]
    ranges = {row[0]: row[1:] for row in cells(text, "Training images and these images")}
    assert ranges["shorter side (pixels)"][0] == "24 to 24"
    assert ranges["shorter side (pixels)"][-1] == "1"
    assert cells(text, "Images that could not be read")[0][0] == "broken.png"
    assert "2 of 8 images (25%) are unlike the training images" in text
    assert "widened on both sides by 25%" in text


def test_the_surest_and_the_least_sure_images_are_shown(answers, make):
    text = make(answers)
    table = read_predictions(answers)
    sections = re.split(r"<section id=", text)
    least = next(part for part in sections if part.startswith('"least-certain-predictions"'))
    captions = re.findall(r"<figcaption[^>]*>(\S+): predicted (\S+), probability (\d\.\d+)", least)
    order = np.argsort(table.probabilities.max(1))
    assert captions[0][0] == table.rows[order[0]]["image_id"]
    assert [float(caption[2]) for caption in captions] == sorted(float(caption[2]) for caption in captions)
    assert len(captions) == min(SHOWN, 8)
    assert "data:image/png;base64," in least


def test_models_one_by_one_are_averaged_and_their_agreement_is_shown(place, settings, make, answers):
    predict(
        PredictOptions(place / "run", (str(place / "new"),), members=True), replace(settings, out=place / "members.csv")
    )
    text = make(place / "members.csv")
    table = read_predictions(place / "members.csv")
    assert len(table.rows) == 16
    of = {row["image_id"]: [] for row in table.rows}
    for row in table.rows:
        of[row["image_id"]].append(row["predicted"])
    agreeing = sum(len(set(names)) == 1 for names in of.values())
    assert f"All models predict the same class for {agreeing} ({agreeing / 8:.0%}) of the images." in text
    assert cells(text, "Predicted classes") == cells(make(answers, out="mean.html"), "Predicted classes")


def test_one_model_has_its_thresholds_and_its_run(place, settings, make):
    predict(PredictOptions(place / "run" / "r0f0", (str(place / "new"),)), replace(settings, out=place / "one.csv"))
    text = make(place / "one.csv", positive="normal")
    assert "Each probability is that of one model." in text
    assert [row[0] for row in cells(text, "Predicted classes")] == ["normal", "covid"]
    assert OWN in text


def test_of_an_earlier_model_the_training_images_are_not_known(place, settings, make, editable):
    shutil.copytree(place / "run", place / "earlier", dirs_exist_ok=True)
    editable(place / "earlier")
    for path in (place / "earlier").glob("r*/model.json"):
        content = json.loads(path.read_text())
        del content["usual"]["training"]
        path.write_text(json.dumps(content))
    predict(PredictOptions(place / "earlier", (str(place / "new"),)), replace(settings, out=place / "earlier.csv"))
    text = make(place / "earlier.csv")
    assert "because an earlier cxrtool trained it" in text
    assert "Training images and these images" not in text
    assert OWN in text


def test_without_the_files_beside_it_the_page_says_what_is_not_known(answers, make):
    for name in ("run.json", "images.csv", "rejects.csv"):
        answers.with_suffix(f".{name}").unlink()
    text = make(answers)
    assert "answers.run.json is missing" in text
    assert "their properties were not recorded" in text
    assert OWN not in text
    assert "cxrtool evaluate RUN TABLE" in text


def test_a_run_that_was_trained_again_is_not_described(answers, make):
    made = json.loads(answers.with_suffix(".run.json").read_text())
    made["members"][0]["digest"] = "0"
    answers.with_suffix(".run.json").write_text(json.dumps(made))
    text = make(answers)
    assert "was trained again after these predictions" in text
    assert OWN not in text
    assert cells(text, "In what")


def test_labels_that_are_no_classes_are_not_used(answers, make, listener):
    table = read_table(answers)
    rows = [{**row, "label": "ward-7"} for row in table.rows]
    write_table(answers, table.columns, rows)
    text = make(answers)
    assert NO_LABELS in text
    assert "has no class of the model (covid, normal), but ward-7" in text
    assert "--relabel" in listener.warned[-1]


def test_some_labels_make_a_report_with_labels_that_names_the_rest(make_predictions, tmp_path, make, listener):
    table = make_predictions(30)
    for row in table.rows[:6]:
        row["label"] = ""
    write_predictions(tmp_path / "some.csv", table)
    text = make("some.csv")
    assert "6 of 30 images have no label and are not on this page." in text
    assert "6 of 30 images" in listener.warned[-1]
    assert NO_LABELS not in text


def test_options_about_labels_are_refused(answers, make):
    with pytest.raises(UsageError, match=r"--by: expected labelled predictions, found no label in .*answers.csv"):
        make(answers, by="sex", origins={"by": "flag"})
    with pytest.raises(UsageError, match="--positive: expected one of covid, normal"):
        make(answers, positive="covit")
    with pytest.raises(UsageError, match="expected one table of predictions without labels, found 2"):
        make(answers, answers)


def test_predictions_of_twins_are_fused_first(tmp_path, make):
    row = {"image_id": "a_r0f0_P", "path": "a.png", "subset": "test", "label": "", "predicted": "P@P"}
    write_table(tmp_path / "twins.csv", [*row, "prob_P@P", "prob_N@P"], [{**row, "prob_P@P": "0.6", "prob_N@P": "0.4"}])
    with pytest.raises(InputError, match="expected predictions of images, found those of their twins"):
        make("twins.csv")


def test_images_that_are_gone_are_counted(answers, make):
    table = read_table(answers)
    write_table(answers, table.columns, [{**row, "path": f"/gone/{row['image_id']}.png"} for row in table.rows])
    text = make(answers)
    assert "8 of these 8 images are not where they were, and are not shown." in text


def test_the_same_again_does_nothing_and_gives_the_same_bytes(answers, make, listener):
    text = make(answers)
    make(answers)
    assert listener.said[-1].endswith("up to date, nothing to do")
    assert make(answers, force=True) == text
    assert make(answers, dry_run=True) is None


def test_the_figure_has_a_panel_for_each_class(tmp_path):
    from cxrtool.evaluation.plots.probabilities import draw_probabilities

    scores = np.random.default_rng(0).dirichlet([1, 1, 1], 50)
    draw_probabilities(["a", "b", "c"], scores, scores[:9], [2, 0, 1], tmp_path / "three.png")
    draw_probabilities(["a", "b", "c"], scores, None, [2, 0, 1], tmp_path / "plain.png")
    wide, plain_one = (cv2.imread(str(tmp_path / name)) for name in ("three.png", "plain.png"))
    assert wide.shape == plain_one.shape
    assert (wide != plain_one).any()
