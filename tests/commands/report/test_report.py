import json
import re

import numpy as np
import pytest
import torch

from cxrtool.auditing.part import ALARM, CLEAR, Finding, Part, headline
from cxrtool.commands.report import LARGEST, report
from cxrtool.commands.report.options import ReportOptions
from cxrtool.commands.train import train
from cxrtool.commands.train.options import TrainOptions
from cxrtool.data.splitting.splits import dump_splits
from cxrtool.data.tables.manifest import read_table
from cxrtool.data.tables.predictions import write_predictions
from cxrtool.errors import IncompleteError, InputError, OutputError, UsageError
from cxrtool.evaluation.tables import NO_AUDIT, Sheet
from cxrtool.flow.settings import Settings
from cxrtool.reporting import titles


@pytest.fixture(scope="module")
def place(tmp_path_factory, make_masked_study):
    """A study of masked images and a run of its two folds, which learnt nothing and so errs."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("place")
    study = make_masked_study(folder)
    told = TrainOptions(
        study.folder, study.splits, model="covid-xnet", size=32, epochs=1, batch_size=8, lr=1e-9, augment="none"
    )
    train(told, Settings(cache=folder / "cache", out=folder / "run", argv=["cxrtool", "train", "study", "-o", "run"]))
    return folder


@pytest.fixture
def undrawn(monkeypatch):
    """Leave the pictures of the evaluation undrawn: they cost more than all the rest."""
    monkeypatch.setattr("cxrtool.evaluation.plots.curves.draw_scores", lambda scores, summary, folder: [])


def headings(text):
    return re.findall(r'<h2 id="[^"]*--title">([^<]*)</h2>', text)


def test_a_run_makes_a_whole_page(place, make):
    text = make(place / "run", positive="covid", checklist="claim", errors=3)
    found = headings(text)
    assert found == [
        titles.FLOW,
        titles.TABLE_ONE,
        titles.RESULTS,
        "Results by group",
        "Results of each fold",
        titles.ERRORS,
        "No audit",
        titles.SETTINGS,
        titles.CURVES,
        titles.METHODS,
        titles.LIMITS,
        titles.MACHINES,
        titles.CHECKLIST,
    ]
    assert len(text.encode()) < LARGEST
    assert NO_AUDIT in text
    for told in (
        "sensitivity for covid",
        "covid-xnet",
        "<code>cxrtool train study -o run</code>",
        "By sex",
        "By source",
        "divided for training and test",
        "Grad-CAM",
        "ROC curves",
        "No calibration plot: 16 test images are too few for 3 bins of 20.",
    ):
        assert told in text, told


def test_the_first_screen_answers_and_the_rest_is_folded(place, make, undrawn):
    text = make(place / "run", positive="covid", errors=0)
    first = text[: text.index("<main")]
    questions = re.findall(r"<dt>([^<]*)</dt>", first)
    assert questions == ["What was tested", "On whom", "How good", "How far to trust it"]
    for told in (
        "The network covid-xnet, trained on ",
        "each of these models was tested on images of patients that it was not trained on",
        "16 test images of ",
        "Of 8 images of covid, ",
        "No external test",
        NO_AUDIT,
    ):
        assert told in first, told
    assert "<nav" not in text, "the headings of the folded sections are the contents"
    unfolded = re.findall(r'(?<!<summary>)<h2 id="[^"]*--title">([^<]*)</h2>', text)
    assert unfolded == [titles.RESULTS]


def test_leakage_that_was_allowed_is_an_alarm_on_the_first_screen(place, make, tmp_path, undrawn):
    import shutil

    shutil.copytree(place / "run", tmp_path / "run")
    file = tmp_path / "run" / "run.json"
    made = json.loads(file.read_text())
    file.write_text(json.dumps({**made, "argv": [*made["argv"], "--allow-leakage"]}))
    first = make("run", errors=0).partition("<main")[0]
    assert '<li class="alarm">' in first
    assert "may have been tested on what it was trained on" in " ".join(first.split())
    assert "was not trained on" not in first


def test_the_division_is_stated_and_its_command_is_shown(place, make, tmp_path, undrawn, editable):
    import shutil

    text = make(place / "run", errors=0)
    assert "How this division was made is not recorded." in text
    assert "No patient is in two subsets of a division." in text
    shutil.copytree(place / "run", tmp_path / "run")
    editable(tmp_path / "run")
    splits = tmp_path / "run" / "splits.csv"
    line = "split --folds 2 --repeats 1 --validation 0.1 --group patient_id --stratify label --seed 5"
    splits.write_text(dump_splits(read_table(splits).rows, [line]))
    text = make("run", errors=0)
    for told in ("into 2 folds was drawn at random by", "stratified by label.", "The seed of the draw was 5."):
        assert told in text, told
    assert "not recorded" not in text
    assert text.index(f"<code>cxrtool {line}</code>") < text.index("<code>cxrtool train study -o run</code>")


def test_the_errors_are_those_of_the_predictions(place, make, undrawn):
    wrong = []
    for file in sorted((place / "run").glob("r*/predictions.csv")):
        header, *lines = file.read_text().splitlines()
        for line in lines:
            row = dict(zip(header.split(","), line.split(","), strict=True))
            if row["subset"] == "test" and row["label"] != row["predicted"]:
                wrong.append((-float(row[f"prob_{row['predicted']}"]), row["image_id"]))
    assert wrong, "a network that learnt nothing errs"
    text = make(place / "run", errors=2)
    assert f"The predicted class is wrong for {len(wrong)} of 16 test images" in text
    shown = re.findall(r'<th scope="row" class="(?:name|prose)">(im\d+)</th>', text)
    assert shown == [name for _, name in sorted(wrong)[:2]]
    # One picture an error, with its name for those who do not see it.
    assert all(re.search(rf'<img src="data:[^"]+" [^>]*alt="{name}: ', text) for name in shown)


def test_without_models_the_images_stand_alone(place, make, tmp_path, undrawn):
    files = sorted((place / "run").glob("r*/predictions.csv"))
    text = make(*files, errors=2)
    assert "No heatmaps: the models that tested these images are missing." in text
    assert 'alt="im0' in text
    assert titles.SETTINGS not in headings(text)
    assert "The run that made the predictions is not available" in text
    assert "Grad-CAM" not in text


def test_a_single_fold_has_its_run(place, make, undrawn):
    text = make(place / "run" / "r0f0", errors=0)
    assert titles.SETTINGS in headings(text)
    assert titles.ERRORS not in headings(text)


def test_predictions_of_images_that_are_gone(make, make_predictions, tmp_path, undrawn):
    write_predictions(tmp_path / "p.csv", make_predictions(60, repeats=2, folds=2))
    text = make("p.csv")
    assert "of these 8 images are missing and are not shown" in text
    assert "The origin of the images is not known" in text
    assert "pooled over the folds of a repeat" in text


def test_sets_side_by_side_each_have_their_errors(make, make_predictions, tmp_path):
    for seed, name in enumerate("ab"):
        write_predictions(tmp_path / f"{name}.csv", make_predictions(60, seed=seed))
    text = make("inside=a.csv", "outside=b.csv")
    assert {"Most confident errors: inside", "Most confident errors: outside"} <= set(headings(text))
    assert "outside: ROC curves" in text


def test_the_same_again_does_nothing(place, make, listener, tmp_path, undrawn):
    text = make(place / "run", errors=0)
    stamp = (tmp_path / "report.html").stat().st_mtime_ns
    assert make(place / "run", errors=0) == text
    assert (tmp_path / "report.html").stat().st_mtime_ns == stamp
    assert listener.said[-1].endswith("report.html: up to date, nothing to do")
    assert make(place / "run", errors=0, force=True) == text, "and gives the same bytes"
    assert make(place / "run", errors=0, by="sex") != text


def test_a_dry_run_writes_nothing(place, make, listener, tmp_path):
    assert make(place / "run", dry_run=True) is None
    assert not (tmp_path / "report.html").exists()
    assert "would write" in listener.said[-1]


def test_what_is_not_ours_is_left_alone(place, make, tmp_path):
    (tmp_path / "report.html").write_text("<html>mine</html>")
    with pytest.raises(OutputError, match="something else"):
        make(place / "run", force=True)
    assert (tmp_path / "report.html").read_text() == "<html>mine</html>"
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="found a folder"):
        make(place / "run", out="folder")


def test_what_cannot_be_reported_is_said(place, make, settings, tmp_path):
    with pytest.raises(UsageError, match="expected -o FILE"):
        report(ReportOptions(inputs=(str(place / "run"),)), settings)
    with pytest.raises(UsageError, match="--checklist"):
        make(place / "run", checklist="other")
    with pytest.raises(UsageError, match="--positive"):
        make(place / "run", positive="other")
    with pytest.raises(InputError, match="no such run"):
        make("nowhere")
    (tmp_path / "none.csv").write_text("image_id,path,label,prob_covid,prob_normal\n")
    with pytest.raises(InputError, match="expected labelled predictions"):
        make("none.csv")


def test_a_run_that_lacks_folds(place, make, tmp_path, undrawn):
    import shutil

    shutil.copytree(place / "run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "r0f1")
    with pytest.raises(IncompleteError, match="1 of 2 folds"):
        make("run")
    assert "Only 1 of 2 folds exist." in make("run", partial=True, errors=0)


@pytest.fixture
def audited(place, tmp_path):
    """The folder of an audit of the study."""
    import shutil

    from PIL import Image

    parts = [
        Part("leakage", "Leakage", {}, [Finding(CLEAR, "No patient is in two subsets.")]),
        Part(
            "probes",
            "Probes",
            {},
            [Finding(ALARM, "The border alone reaches 0.97.")],
            [Sheet("Probes beside the model", ["probe", "value"], [["border", "0.97 (0.90-0.99)"]], [])],
            [("border.png", "What a probe sees."), ("gone.png", "Gone.")],
        ),
    ]
    folder = tmp_path / "audit"
    folder.mkdir()
    content = {
        "about": "24 images.",
        "headline": headline(parts),
        "parts": {part.name: part.as_json() for part in parts},
    }
    (folder / "audit.json").write_text(json.dumps(content))
    shutil.copy(place / "study" / "manifest.csv", folder / "manifest.csv")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "border.png")
    return folder


def test_the_audit_of_the_same_images_is_found_and_shown(place, make, audited, undrawn):
    text = make(place / "run", errors=0)
    first = text[: text.index("<main")]
    assert '<li class="alarm">' in first
    assert "The border alone reaches 0.97." in first
    assert NO_AUDIT not in text
    found = headings(text)
    assert [title for title in found if title.startswith(titles.AUDIT)] == ["Audit", "Audit: Leakage", "Audit: Probes"]
    assert "Probes beside the model" in text
    assert 'alt="What a probe sees."' in text
    assert "1 figure of this part can no longer be found in" in text


def test_a_new_audit_makes_a_new_page(place, make, audited, undrawn):
    before = make(place / "run", errors=0)
    content = json.loads((audited / "audit.json").read_text())
    content["parts"]["probes"]["findings"][0]["text"] = "The border alone reaches 0.55, no more than chance."
    (audited / "audit.json").write_text(json.dumps(content))
    assert "no more than chance" in make(place / "run", errors=0)
    assert "no more than chance" not in before


def test_an_audit_that_is_named_must_be_one(place, make, tmp_path):
    with pytest.raises(InputError, match=r"audit.json"):
        make(place / "run", audit=tmp_path / "none")


@pytest.fixture(scope="module")
def explained(place):
    """The folder of `explain` that scored heatmaps of the test images against the masks of their manifest."""
    from cxrtool.commands.explain import run
    from cxrtool.flow.heatmaps.options import ExplainOptions

    manifest = place / "study" / "manifest.csv"
    told = ExplainOptions(
        model=place / "run", sources=(str(manifest),), reference=manifest, structure="mask", faithfulness=2
    )
    run(told, Settings(out=place / "heatmaps", workers=1))
    return place / "heatmaps"


def test_scores_of_heatmaps_have_a_section_with_chance_beside(place, make, explained, undrawn):
    text = make(place / "run", errors=0, explained=explained, checklist="claim")
    assert titles.HEATMAPS in headings(text)
    means = json.loads((explained / "scores.json").read_text())["structures"]["mask"]["methods"]["grad-cam"]
    cells = re.findall(r"<t[dh][^>]*>([^<]*)</t[dh]>", text[text.index("On mask") :])
    first = cells.index("energy")
    assert cells[first + 1].startswith(f"{means['energy']['value']:.2f} (")
    assert cells[first + 2] == f"{means['energy']['chance']:.2f}"
    assert "random map" in cells
    assert "gets (red)." in text, "the figure has its caption"
    assert "by whose outlines" in text
    assert "are not among the test images of this page" not in text
    assert titles.HEATMAPS not in make(place / "run", errors=0)


def test_new_scores_make_a_new_page(place, make, explained, tmp_path, undrawn):
    import shutil

    shutil.copytree(explained, tmp_path / "heatmaps")
    before = make(place / "run", errors=0, explained=tmp_path / "heatmaps")
    file = tmp_path / "heatmaps" / "scores.json"
    content = json.loads(file.read_text())
    content["structures"]["mask"]["methods"]["grad-cam"]["empty_maps"] = 3
    file.write_text(json.dumps(content))
    (tmp_path / "heatmaps" / "run.json").unlink()
    after = make(place / "run", errors=0, explained=tmp_path / "heatmaps")
    assert "grad-cam: 3 maps without any heat." in after
    assert "without any heat" not in before


def test_scores_must_be_there_and_of_images_of_the_page(place, make, explained, tmp_path):
    with pytest.raises(InputError, match=r"--explained .*none: expected a folder of `cxrtool explain` with scores"):
        make(place / "run", explained=tmp_path / "none")
    (tmp_path / "foreign.csv").write_text("image_id,label,prob_a,prob_b\nx,a,0.9,0.1\ny,b,0.2,0.8\n")
    with pytest.raises(InputError, match=r"found heatmaps of \d+ other images"):
        make("foreign.csv", explained=explained)


def test_a_foreign_table_with_nothing_but_answers(make, tmp_path, undrawn):
    lines = [f"i{k},{'ab'[k % 2]},{p},{1 - p}" for k, p in enumerate((0.9, 0.2, 0.4, 0.3, 0.8, 0.75))]
    (tmp_path / "foreign.csv").write_text("\n".join(["image_id,label,prob_a,prob_b", *lines]) + "\n")
    text = make("foreign.csv")
    assert "The predicted class is wrong for 2 of 6 test images." in text
    assert "Patients are not known" in text
    assert "There is no patient_id" in text
