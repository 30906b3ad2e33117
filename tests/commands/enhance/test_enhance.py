import json
import signal
import subprocess
import sys
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
from skimage.exposure import match_histograms

from cxrtool.commands.enhance import EnhanceOptions, enhance
from cxrtool.commands.predict import PredictOptions, predict
from cxrtool.data.tables.manifest import read_manifest, read_table, write_manifest, write_table
from cxrtool.errors import InputError, LeakageError, OutputError, StrictError, UsageError
from cxrtool.flow.chain import chain_of
from cxrtool.flow.replaying import decode


@pytest.fixture
def enhanced(settings, tmp_path):
    """Enhance a study; keywords are those of `EnhanceOptions` or of `Settings`."""

    def call(manifest, steps="match-histogram,clahe", out="enhanced", **changes):
        shared = {name: changes.pop(name) for name in list(changes) if name in type(settings).__dataclass_fields__}
        target = tmp_path / out
        options = EnhanceOptions(manifest, steps, **{"strips": 0, "clahe_tiles": 2, **changes})
        enhance(options, replace(settings, out=target, **shared))
        return target

    return call


def pixels_of(row):
    return cv2.imread(row["path"], cv2.IMREAD_UNCHANGED)


def chain_in(folder):
    return json.loads((folder / "run.json").read_text())["chain"]


def nearest(rows):
    """The image nearest to the mean of the cumulative histograms, written out."""
    cumulative = np.array([np.cumsum(np.bincount(pixels_of(row).ravel(), minlength=256)) for row in rows]) / 1.0
    cumulative /= cumulative[:, -1:]
    return rows[int(np.abs(cumulative - cumulative.mean(0)).sum(1).argmin())]


def test_without_splits_one_image_of_all_is_the_reference_and_the_user_is_told(study, enhanced, listener):
    folder = enhanced(study.folder, "match-histogram", strips=2)
    before, after = read_manifest(study.folder), read_manifest(folder)
    reference = nearest(before.rows)
    for one, other in zip(before.rows, after.rows, strict=True):
        assert np.abs(pixels_of(other) - match_histograms(pixels_of(one), pixels_of(reference))).max() <= 1
        assert {**one, "path": other["path"]} == other
    assert any("including test images" in text for text in listener.warned)
    assert f"reference: {reference['image_id']}, whose histogram is nearest to the mean" in listener.said
    assert cv2.imread(str(folder / "strips.png")).shape[1] > 600
    assert json.loads((folder / "run.json").read_text())["references"] == {"": reference["image_id"]}


def test_with_splits_each_fold_has_the_reference_of_its_training_images(study, enhanced, listener):
    folder = enhanced(study.folder, "match-histogram", splits=study.splits)
    rows = {row["image_id"]: row for row in read_manifest(study.folder).rows}
    made = {(row["repeat"], row["fold"], row["parent_id"]): row for row in read_manifest(folder).rows}
    assert len(made) == 6 * len(rows)
    assert not listener.warned
    for repeat, fold in ((0, 0), (1, 2)):
        trained = [rows[name] for name in sorted(study.assigned(repeat, fold, "train"))]
        reference = pixels_of(nearest(trained))
        for name, row in rows.items():
            other = made[str(repeat), str(fold), name]
            assert other["path"].endswith(f"images/r{repeat}f{fold}/{name}.png")
            assert other["image_id"] == f"{name}_r{repeat}f{fold}"
            assert np.abs(pixels_of(other) - match_histograms(pixels_of(row), reference)).max() < 0.51
    (match,) = chain_in(folder)
    assert set(match["folds"]) == {f"r{repeat}f{fold}" for repeat in range(2) for fold in range(3)}


def test_what_is_told_is_replayed_to_the_same_pixels(study, enhanced, rib_part):
    plain = {row["image_id"]: row["path"] for row in read_manifest(study.folder).rows}
    for out, splits in (("once", None), ("folds", study.splits)):
        folder = enhanced(study.folder, "suppress-ribs,match-histogram,clahe", out, splits=splits, ribs=rib_part)
        assert not (folder / "before").exists()
        for row in read_manifest(folder).rows[:: 5 if splits else 8]:
            chain = chain_of([folder / "images" / "x.png"] if not splits else [type(folder)(row["path"])])
            assert [entry["step"] for entry in chain] == ["suppress-ribs", "match-histogram", "clahe"]
            again, _ = decode(
                type(folder)(plain[row.get("parent_id") or row["image_id"]]), chain=chain, size=40, fit="squash"
            )
            assert (again == decode(type(folder)(row["path"]), chain=[], size=40, fit="squash")[0]).all()
        # The network travels with the folder, and its place is not written down.
        assert len(list((folder / "parts").iterdir())) == 1
        assert "_at" not in (folder / "run.json").read_text()


def test_a_given_reference_goes_through_the_steps_before_the_match(study, enhanced, tmp_path, listener):
    image = read_manifest(study.folder).rows[3]["path"]
    folder = enhanced(study.folder, "clahe,match-histogram", reference=type(tmp_path)(image))
    equalise = cv2.createCLAHE(2.0, (2, 2)).apply
    reference = equalise(cv2.imread(image, cv2.IMREAD_UNCHANGED))
    for one, other in zip(read_manifest(study.folder).rows, read_manifest(folder).rows, strict=True):
        assert np.abs(pixels_of(other) - match_histograms(equalise(pixels_of(one)), reference)).max() <= 1
    assert not listener.warned


def test_16_bits_stay_16_bits(tmp_path, enhanced, rib_part):
    rows = []
    for k in range(3):
        rows.append({"image_id": str(k), "path": str(tmp_path / f"{k}.png"), "warning": "odd"[:k], "other": "é;,"})
        deep = np.random.default_rng(k).integers(0, 60_000, (20, 24), np.uint16)
        cv2.imwrite(rows[-1]["path"], deep if k else (deep >> 8).astype(np.uint8))
    write_manifest(tmp_path / "m.csv", list(rows[0]), rows)
    folder = enhanced(tmp_path / "m.csv", "match-histogram,suppress-ribs,clahe", ribs=rib_part)
    made = read_manifest(folder).rows
    assert [pixels_of(row).dtype for row in made] == [np.uint8, np.uint16, np.uint16]
    assert [(row["warning"], row["other"]) for row in made] == [("", "é;,"), ("o", "é;,"), ("od", "é;,")]


def test_images_of_folds_are_enhanced_further_each_in_its_own(study, enhanced):
    first = enhanced(study.folder, "match-histogram", "first", splits=study.splits)
    second = enhanced(first, "clahe", "second")
    rows, made = read_manifest(first).rows, read_manifest(second).rows
    assert [{**row, "path": ""} for row in rows] == [{**row, "path": ""} for row in made]
    equalise = cv2.createCLAHE(2.0, (2, 2)).apply
    assert all((pixels_of(b) == equalise(pixels_of(a))).all() for a, b in zip(rows[::7], made[::7], strict=True))
    assert [entry["step"] for entry in chain_of([type(first)(made[-1]["path"])])] == ["match-histogram", "clahe"]
    with pytest.raises(InputError, match="each fold needs its own reference"):
        enhanced(first, "match-histogram", "third")


def test_one_bad_file_is_one_reject(study, enhanced, listener):
    rows = read_manifest(study.folder).rows
    type(study.folder)(rows[5]["path"]).write_bytes(b"\x89PNG no more")
    for out, splits in (("once", None), ("folds", study.splits)):
        folder = enhanced(study.folder, out=out, splits=splits)
        assert len(read_manifest(folder)) == (len(rows) - 1) * (6 if splits else 1)
        (reject,) = read_table(folder / "rejects.csv").rows
        assert "im005.png" in reject["path"]
    with pytest.raises(StrictError):
        enhanced(study.folder, out="strict", strict=True)


def test_the_same_again_is_nothing_and_another_option_is_all(study, enhanced, listener):
    folder = enhanced(study.folder, splits=study.splits)
    stamp = (folder / "run.json").stat().st_mtime_ns
    enhanced(study.folder, splits=study.splits)
    assert (folder / "run.json").stat().st_mtime_ns == stamp
    assert "up to date" in listener.said[-1]
    # The same division written again is the same.
    study.splits.write_bytes(study.splits.read_bytes())
    enhanced(study.folder, splits=study.splits)
    assert (folder / "run.json").stat().st_mtime_ns == stamp
    enhanced(study.folder, splits=study.splits, clahe_clip=3.0)
    assert (folder / "run.json").stat().st_mtime_ns != stamp
    with pytest.raises(OutputError, match="made by something else"):
        enhanced(study.folder, out="study")


def test_workers_do_not_matter_and_a_killed_command_goes_on(study, enhanced, rib_part, tmp_path):
    told = ("--steps", "suppress-ribs,match-histogram,clahe", "--ribs", rib_part, "--clahe-tiles", 2, "--strips", 0)
    command = [sys.executable, "-m", "cxrtool", "enhance", study.folder, *told, "-o", tmp_path / "b", "--workers", 1]
    whole = enhanced(study.folder, "suppress-ribs,match-histogram,clahe", "a", ribs=rib_part, workers=2)
    with subprocess.Popen([str(word) for word in command], stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            if len(list(tmp_path.glob(".b.*.partial/before/*.png"))) > 8:
                process.send_signal(signal.SIGKILL)
            time.sleep(0.01)
    assert process.returncode == -signal.SIGKILL, "it was too quick to be killed"
    assert not (tmp_path / "b").exists()
    other = enhanced(study.folder, "suppress-ribs,match-histogram,clahe", "b", ribs=rib_part)
    for path in (p for p in whole.rglob("*") if p.is_file() and p.name != "run.json"):
        assert (other / path.relative_to(whole)).read_bytes() == path.read_bytes(), path
    assert not list(tmp_path.glob(".b.*"))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"steps": ""}, "--steps: expected some of match-histogram,suppress-ribs,clahe"),
        ({"steps": "clahe,sharpen"}, "found 'sharpen'"),
        ({"steps": "clahe,clahe"}, "each once"),
        ({"steps": "clahe", "clahe_clip": 0.0}, "--clahe-clip: expected a number above 0"),
        ({"reference": "a.png", "splits": "s.csv"}, "give only one of the two"),
        (
            {"steps": "clahe", "reference": "a.png", "origins": {"reference": "flag"}},
            "belongs to the step match-histogram",
        ),
    ],
)
def test_mistakes_are_told_before_anything_is_read(enhanced, tmp_path, changes, text):
    with pytest.raises(UsageError) as caught:
        enhanced(tmp_path / "nowhere.csv", **changes)
    assert text in str(caught.value)


def test_a_rib_network_that_saw_a_test_image_is_told_of(study, enhanced, rib_part, tmp_path, listener):
    import shutil

    part = shutil.copytree(rib_part, tmp_path / "part")
    write_table(part / "fitted_on.csv", ["patient_id", "sha256"], [{"patient_id": " P:003 ", "sha256": ""}])
    enhanced(study.folder, "suppress-ribs", ribs=part, splits=study.splits)
    assert any("was fitted on 2 test images of these splits" in text for text in listener.warned)
    # Nothing here depends on the fold, so the images are written once.
    assert len(read_manifest(tmp_path / "enhanced")) == 24


def test_a_network_trained_fold_by_fold_knows_its_own_chain(study, enhanced, train_study, tmp_path, settings):
    from cxrtool.data.tables.predictions import read_predictions

    folder = enhanced(study.folder, "match-histogram,clahe", splits=study.splits)
    run = train_study(replace(study, folder=folder), only="r0f0,r1f2")
    told = {name: json.loads((run / name / "model.json").read_text())["chain"] for name in ("r0f0", "r1f2")}
    for name, chain in told.items():
        assert chain[0]["quantiles"] == chain_in(folder)[0]["folds"][name]
        assert "folds" not in chain[0]
    answers = read_predictions(run / "r1f2" / "predictions.csv")
    assert sorted(row["image_id"] for row in answers.rows if row["subset"] == "test") == sorted(
        study.assigned(1, 2, "test")
    )
    assert all("/images/r1f2/" in row["path"] for row in answers.rows)
    fitted = {row["image_id"] for row in read_table(run / "r1f2" / "fitted_on.csv").rows}
    assert fitted == {*study.assigned(1, 2, "train"), *study.assigned(1, 2, "validation")}
    # The raw test images, taken through the fold's own chain, get the answers that the fold gave.
    raw = read_manifest(study.folder)
    tested = [row for row in raw.rows if row["image_id"] in study.assigned(1, 2, "test")]
    write_manifest(tmp_path / "tested.csv", raw.columns, tested)
    predict(PredictOptions(run / "r1f2", str(tmp_path / "tested.csv")), replace(settings, out=tmp_path / "p.csv"))
    again = read_predictions(tmp_path / "p.csv")
    given = {row["image_id"]: values for row, values in zip(answers.rows, answers.probabilities, strict=True)}
    for row, values in zip(again.rows, again.probabilities, strict=True):
        assert np.allclose(values, given[row["image_id"]], atol=1e-6)
    # And raw training images are known again, though the network saw them enhanced.
    with pytest.raises(LeakageError):
        predict(PredictOptions(run / "r1f2", str(study.folder)), settings)


def test_black_borders_that_would_blacken_others_are_told_of(study, enhanced, listener, tmp_path):
    bordered = np.full((40, 40), 90, np.uint8)
    bordered[:, 20:] = np.arange(100, 120)
    bordered[:6] = 0
    cv2.imwrite(str(tmp_path / "bordered.png"), bordered)
    enhanced(study.folder, "match-histogram", reference=tmp_path / "bordered.png")
    assert any("is black in 15% of its area" in text for text in listener.warned)
    listener.warned.clear()
    cv2.imwrite(str(tmp_path / "whole.png"), bordered[6:])
    enhanced(study.folder, "match-histogram", reference=tmp_path / "whole.png", out="other")
    # Here the darkest is half of the picture, and it is told too; a picture of many levels is not.
    assert len(listener.warned) == 1
    listener.warned.clear()
    enhanced(
        study.folder,
        "match-histogram",
        reference=type(tmp_path)(read_manifest(study.folder).rows[0]["path"]),
        out="third",
    )
    assert listener.warned == []
