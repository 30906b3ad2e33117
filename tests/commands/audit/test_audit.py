import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from cxrtool.auditing.catalogue import NO_LUNG, PROBES, Probe
from cxrtool.auditing.part import ALARM, Part
from cxrtool.auditing.views import View
from cxrtool.cli.main import load
from cxrtool.commands import audit as step
from cxrtool.commands.audit import audit
from cxrtool.commands.audit import corners as audit_corners
from cxrtool.commands.audit import external as audit_external
from cxrtool.commands.audit import heatmaps as audit_heatmaps
from cxrtool.commands.audit.options import AuditOptions
from cxrtool.commands.train import train
from cxrtool.commands.train.options import TrainOptions
from cxrtool.data.tables.manifest import read_manifest, read_table, write_manifest, write_table
from cxrtool.errors import InputError, StrictError, UsageError
from cxrtool.flow.settings import Settings

FAST = {"permutations": 20}


@pytest.fixture(scope="module")
def place(tmp_path_factory, make_masked_study):
    """A study whose class is the brighter half, which its masks cover, and a run of two folds of it."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("place")
    study = make_masked_study(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cxrtool.training.curves.draw_history", lambda path, history, title: path.write_bytes(b"png"))
        told = TrainOptions(
            study.folder, study.splits, model="covid-xnet", size=32, epochs=8, batch_size=8, augment="none"
        )
        train(told, Settings(cache=folder / "cache", out=folder / "run"))
    return folder, study


def framed(folder, *, bright, images=60, side=48):
    """Noise of two classes, each patient with one picture; with `bright` a border of its own for one class."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    rows = []
    for k in range(images):
        pixels = rng.integers(60, 120, (side, side), np.uint8)
        label = "ab"[k % 2]
        if bright and label == "a":
            pixels[:3] = pixels[-3:] = 200
        cv2.imwrite(str(folder / f"{k}.png"), pixels)
        mask = np.zeros((side, side), np.uint8)
        mask[12:36, 10:20] = mask[12:36, 28:38] = 255
        cv2.imwrite(str(folder / f"{k}_mask.png"), mask)
        rows.append(
            {
                "image_id": f"i{k}",
                "path": str(folder / f"{k}.png"),
                "label": label,
                "patient_id": f"p{k}",
                "mask": str(folder / f"{k}_mask.png"),
            }
        )
    write_manifest(folder / "manifest.csv", list(rows[0]), rows)
    return folder


def levels(found, part):
    return [finding["level"] for finding in found["parts"][part]["findings"]]


def texts(found, part):
    return " ".join(finding["text"] for finding in found["parts"][part]["findings"])


def test_a_border_that_tells_the_class_is_an_alarm_and_noise_is_none(tmp_path, settings):
    found = audit(AuditOptions(framed(tmp_path / "planted", bright=True), **FAST), settings)
    assert "alarm" in levels(found, "probes")
    assert "border alone reaches" in texts(found, "probes")
    assert found["headline"][0].startswith("1 alarm")
    clean = audit(AuditOptions(framed(tmp_path / "clean", bright=False), **FAST), settings)
    assert "alarm" not in levels(clean, "probes")


def test_the_folder_holds_the_page_the_figures_and_the_images(place, tmp_path, settings):
    folder, study = place
    told = AuditOptions(study.folder, run=folder / "run", images=8, **FAST)
    out = tmp_path / "audit"
    found = audit(told, replace(settings, out=out))
    assert json.loads((out / "audit.json").read_text()) == json.loads(step.dump_audit(found))
    assert [row["image_id"] for row in read_manifest(out).rows] == [
        row["image_id"] for row in read_manifest(study.folder).rows
    ]
    page = (out / "audit.html").read_text()
    for entry in found["parts"].values():
        assert entry["title"] in page
        assert all((out / file).is_file() for file, _ in entry["pictures"])
    assert list(found["parts"]) == ["leakage", "confounding", "probes", "sources", "left_out", "heatmaps", "corners"]
    assert not list(out.glob(".*"))
    stamp = (out / "manifest.csv").stat().st_mtime_ns
    assert audit(told, replace(settings, out=out)) == found
    assert (out / "manifest.csv").stat().st_mtime_ns == stamp


def test_an_interrupted_audit_goes_on_with_the_next_part(place, tmp_path, settings, listener, monkeypatch):
    folder, study = place
    told = AuditOptions(study.folder, run=folder / "run", images=4, **FAST)
    whole = audit(told, replace(settings, out=tmp_path / "whole"))

    def stop(*arguments, **named):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(audit_heatmaps, "examine", stop)
        with pytest.raises(KeyboardInterrupt):
            audit(told, replace(settings, out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()

    def again(*arguments, **named):
        raise AssertionError("what was done is done again")

    with monkeypatch.context() as patch:
        patch.setattr("cxrtool.auditing.probes.examine", again)
        assert audit(told, replace(settings, out=tmp_path / "out")) == whole
    assert any("going on where it stopped" in text for text in listener.said)


def test_the_model_is_measured_beside_the_probes_on_its_own_splits(place, settings):
    folder, study = place
    found = audit(AuditOptions(study.folder, run=folder / "run", images=0, **FAST), settings)
    assert f"2 folds of {folder / 'run' / 'splits.csv'}" in found["about"]
    model = found["parts"]["probes"]["content"]["model"]
    assert model["balanced_accuracy"]["value"] > 0.8
    assert not {"heatmaps", "corners"} & set(found["parts"])


def test_heatmaps_are_judged_by_what_the_lungs_cover(place, tmp_path, settings):
    folder, study = place
    manifest = read_manifest(study.folder)
    part = audit_heatmaps.examine(
        folder / "run", manifest, manifest.rows, tmp_path, replace(settings, cache=tmp_path / "cache"), False
    )
    assert part.content["energy_inside"]["mask_share"] == pytest.approx(12 / 28, abs=0.01)
    assert part.findings[0].text.startswith("The share of heatmap energy inside the lungs is ")
    assert part.pictures
    assert all((tmp_path / file).is_file() for file, _ in part.pictures)
    assert not list(tmp_path.glob(".heatmaps*"))
    # Wherever the audit is made, its heatmaps name the same images in the same way.
    again = tmp_path / "deeper" / "audit"
    again.mkdir(parents=True)
    audit_heatmaps.examine(
        folder / "run", manifest, manifest.rows, again, replace(settings, cache=tmp_path / "cache"), False
    )
    first, second = (json.loads((at / "heatmaps/run.json").read_text()) for at in (tmp_path, again))
    varying = ("started", "seconds", "files")
    assert {key: first[key] for key in first if key not in varying} == {
        key: second[key] for key in second if key not in varying
    }
    assert str(tmp_path) not in json.dumps(first)


@pytest.mark.parametrize(
    ("energy", "level"),
    [
        ((0.8, 0.7, 0.9), "clear"),
        ((0.5, 0.4, 0.6), "note"),
        ((0.42, 0.4, 0.6), "warning"),
        ((0.2, 0.1, 0.3), "warning"),
    ],
)
def test_no_more_energy_inside_than_the_lungs_cover_is_a_warning(energy, level):
    figure = dict(zip(("value", "low", "high"), energy, strict=True)) | {"images": 9, "mask_share": 0.45}
    found = audit_heatmaps._judge({"energy_inside": figure})
    assert found.level == level
    assert "the lungs cover 0.45 of the images" in found.text


@pytest.mark.parametrize(
    ("share", "level"),
    [
        ((0.0, 0.0, 0.03), "clear"),
        ((0.1, 0.03, 0.2), "note"),
        ((0.1, 0.07, 0.2), "warning"),
        ((0.5, 0.3, 0.7), "alarm"),
    ],
)
def test_corners_are_judged_by_the_whole_interval(share, level):
    figure = dict(zip(("value", "low", "high"), share, strict=True))
    content = {name: {"decisions_changed": figure} for name in (audit_corners.ALL, audit_corners.MIDDLE)}
    assert audit_corners._judge(content, 40).level == level


def test_corners_that_tell_the_class_change_the_answers(tmp_path, settings):
    """Of two networks on the same pictures, one of which can only see the corners, that one is caught."""
    folder = tmp_path / "set"
    folder.mkdir()
    rows, parts = [], []
    for k in range(32):
        pixels = np.random.default_rng(k).integers(80, 120, (40, 40), np.uint8)
        label = "ab"[k % 2]
        if label == "a":
            pixels[:8, :8] = pixels[:8, -8:] = pixels[-8:, :8] = pixels[-8:, -8:] = 250
        cv2.imwrite(str(folder / f"{k}.png"), pixels)
        rows.append({"image_id": str(k), "path": str(folder / f"{k}.png"), "label": label})
        parts.append({"image_id": str(k), "repeat": "0", "fold": "0", "subset": "train" if k < 20 else "test"})
    write_manifest(folder / "manifest.csv", list(rows[0]), rows)
    write_table(tmp_path / "splits.csv", list(parts[0]), parts)
    own = replace(settings, cache=tmp_path / "cache", out=tmp_path / "run")
    train(TrainOptions(folder, tmp_path / "splits.csv", model="thumbnail", size=32, epochs=20, augment="none"), own)
    found = audit(AuditOptions(folder, run=tmp_path / "run", images=12, probes="thumbnail", **FAST), settings)
    corners = found["parts"]["corners"]
    share = corners["content"][audit_corners.ALL]["decisions_changed"]["value"]
    assert share == pytest.approx(0.5, abs=0.1)
    assert corners["content"][audit_corners.MIDDLE]["decisions_changed"]["value"] == 0
    assert levels(found, "corners") == ["alarm"]
    # A linear network has no map to look at: that is said, and ends nothing.
    assert levels(found, "heatmaps") == ["unknown"]


def test_the_model_elsewhere_stands_beside_the_model_at_home(place, tmp_path, settings, make_masked_study):
    folder, study = place
    other = make_masked_study(tmp_path / "other")
    manifest = read_manifest(other.folder)
    for row in manifest.rows:
        # Other patients; and the bright half is the other one, so that what was learnt misleads.
        row["patient_id"] = f"there:{row['patient_id']}"
        picture = cv2.imread(row["path"], cv2.IMREAD_UNCHANGED)[:, ::-1].copy()
        cv2.imwrite(row["path"], picture)
        row["sha256"] = ""
    write_manifest(other.folder / "manifest.csv", manifest.columns, manifest.rows)
    told = AuditOptions(study.folder, run=folder / "run", external=other.folder, images=0, probes="border", **FAST)
    part = audit(told, settings)["parts"]["external_model"]
    home, there = (part["content"][name]["overall"]["macro_auc"]["value"] for name in ("internal", "external"))
    assert home > 0.9
    assert there < 0.1
    assert part["findings"][0]["level"] == "alarm"
    assert "worse than guessing" in part["findings"][0]["text"]
    columns = part["sheets"][0]["columns"]
    assert columns == ["", "internal", "external"]


def test_elsewhere_without_its_classes_is_not_known(place, tmp_path, settings):
    folder, study = place
    manifest = read_manifest(study.folder)
    write_manifest(tmp_path / "m.csv", manifest.columns, [{**row, "label": "other"} for row in manifest.rows])
    from cxrtool.flow.run import read_run_predictions

    part = audit_external.examine(
        folder / "run",
        read_run_predictions(folder / "run"),
        tmp_path / "m.csv",
        replace(settings, allow_leakage=True),
        partial=False,
        max_pixels=None,
    )
    assert part.findings[0].level == "unknown"
    assert "two or more of its classes" in part.findings[0].text


def test_what_is_cut_short_is_told_and_the_rest_goes_on(tmp_path, settings):
    folder = framed(tmp_path / "set", bright=False)
    (folder / "3.png").write_bytes(b"\x89PNG\r\n\x1a\n but no more")
    out = tmp_path / "audit"
    audit(AuditOptions(folder, probes="border", **FAST), replace(settings, out=out))
    assert [Path(row["path"]).name for row in read_table(out / "rejects.csv").rows] == ["3.png"]


def test_what_was_rejected_before_an_interruption_is_listed_after_it(tmp_path, settings, monkeypatch):
    folder, out = framed(tmp_path / "set", bright=False), tmp_path / "audit"
    (folder / "3.png").unlink()

    def stop(*arguments, **named):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("cxrtool.auditing.transfer.left_out", stop)
        with pytest.raises(KeyboardInterrupt):
            audit(AuditOptions(folder, probes="border", **FAST), replace(settings, out=out))
    # Nothing that is left to do reads the pictures again.
    monkeypatch.setattr("cxrtool.auditing.transfer.left_out", lambda *told, **named: Part("left_out", "Left out"))
    monkeypatch.setattr("cxrtool.commands.audit.pictures.Views.pictures", None)
    audit(AuditOptions(folder, probes="border", **FAST), replace(settings, out=out))
    assert [Path(row["path"]).name for row in read_table(out / "rejects.csv").rows] == ["3.png"]


def test_without_a_folder_what_cannot_be_read_is_told(tmp_path, settings, listener):
    folder = framed(tmp_path / "set", bright=False)
    (folder / "3.png").unlink()
    audit(AuditOptions(folder, probes="border", **FAST), settings)
    assert any("1 image cannot be read, such as" in text for text in listener.warned)
    with pytest.raises(StrictError, match=r"3\.png"):
        audit(AuditOptions(folder, probes="border", **FAST), replace(settings, strict=True))


def test_a_patient_on_two_sides_is_a_leak_for_certain(tmp_path, settings):
    folder = framed(tmp_path / "set", bright=False)
    manifest = read_manifest(folder)
    manifest.rows[40]["patient_id"] = manifest.rows[0]["patient_id"]
    write_manifest(folder / "manifest.csv", manifest.columns, manifest.rows)
    parts = [
        {"image_id": f"i{k}", "repeat": "0", "fold": "0", "subset": "train" if k < 40 else "test"} for k in range(60)
    ]
    write_table(tmp_path / "splits.csv", list(parts[0]), parts)
    found = audit(AuditOptions(folder, splits=tmp_path / "splits.csv", quick=True), settings)
    assert step.leaks(found) == "in more than one subset of a fold: 1 patients"
    assert levels(found, "leakage")[0] == "alarm"


def test_the_share_of_the_heat_on_devices_is_beside_their_share_of_the_image(place, tmp_path, settings):
    folder, study = place
    manifest = read_manifest(study.folder)
    tested = study.assigned(0, 0, "test")
    # A device in the half that tells the class, which the maps mark, of some test images; one has none.
    for name in ("device", "letters"):
        (tmp_path / "masks" / name).mkdir(parents=True)
    for row in manifest.rows:
        if row["image_id"] in tested:
            mask = cv2.imread(row["mask"], cv2.IMREAD_UNCHANGED)
            mask[:12] = 0
            cv2.imwrite(
                str(tmp_path / "masks/device" / f"{row['image_id']}.png"), mask * (row["image_id"] != tested[0])
            )
    cv2.imwrite(str(tmp_path / "masks/letters/unknown.png"), np.full((9, 9), 255, np.uint8))
    found = audit(
        AuditOptions(
            study.folder,
            run=folder / "run",
            reference=tmp_path / "masks",
            structure="device,letters",
            probes="border",
            **FAST,
        ),
        replace(settings, out=tmp_path / "audit", cache=tmp_path / "cache"),
    )["parts"]["heatmaps"]
    on = found["content"]["on_structures"]["device"]
    assert on["images"] == len(tested) - 1
    assert on["reference_share"] == pytest.approx(12 * 12 / (24 * 28), abs=1e-6)
    table = read_table(tmp_path / "audit/heatmaps/reference.csv").rows
    energies = [float(row["energy"]) for row in table if row["energy"]]
    assert len(energies) == on["images"]
    assert on["methods"]["grad-cam"]["energy"]["value"] == pytest.approx(np.mean(energies), rel=1e-4)
    words = [finding["text"] for finding in found["findings"]]
    assert words[1].startswith("The share of heatmap energy on device is ")
    assert "they cover 0.214 of the images" in words[1]
    assert words[2] == "How much of the heatmaps is on letters is not known: no test image has an outline."
    assert found["sheets"][1]["rows"][0][0] == "device"


@pytest.mark.parametrize(
    ("difference", "level"), [((0.2, 0.1, 0.3), "warning"), ((0.2, -0.1, 0.3), "note"), ((-0.1, -0.2, 0.1), "clear")]
)
def test_more_heat_on_a_device_than_it_covers_is_a_warning(difference, level):
    ends = ("value", "low", "high")
    means = {
        "energy": {**dict.fromkeys(ends, 0.3), "images": 9},
        "energy_above_share": dict(zip(ends, difference, strict=True)),
    }
    found = audit_heatmaps._judge_on("tubes", {"reference_share": 0.1, "methods": {"grad-cam": means}})
    assert found.level == level
    assert "they cover 0.100 of the images" in found.text


def test_options_that_do_not_go_together(tmp_path, settings):
    with pytest.raises(UsageError, match="--reference: is for heatmaps"):
        AuditOptions(tmp_path, reference=tmp_path)
    with pytest.raises(UsageError, match="--structure: can be used only with --reference"):
        AuditOptions(tmp_path, structure="devices")
    folder = framed(tmp_path / "set", bright=False, images=24)
    with pytest.raises(UsageError, match="--quick"):
        audit(AuditOptions(folder, quick=True, probes="border"), settings)
    with pytest.raises(UsageError, match="NAME=MANIFEST"):
        audit(AuditOptions(folder, stages=("enhanced",)), settings)
    for names in ("corner", "border, corner"):
        with pytest.raises(UsageError, match=r"--probes: expected one of size-and-shape, .*, found 'corner'"):
            AuditOptions(folder, probes=names)


def test_a_new_probe_is_known_to_the_command_line_and_to_an_audit(tmp_path, settings, monkeypatch):
    def corner(pictures):
        shown = pictures.thumbs[:, :8, :8]
        return View(shown.reshape(len(shown), -1))

    with pytest.raises(UsageError, match="found 'corner'"):
        AuditOptions(tmp_path, probes="corner")
    monkeypatch.setitem(
        PROBES, "corner", Probe("corner", "upper left corner", "the upper left corner alone", corner, NO_LUNG, ALARM)
    )
    shown = {parameter.name: parameter.help for parameter in load("audit").params}["probes"]
    assert shown == f"The probes to run, among {', '.join(PROBES)}.  [default: all]"
    assert "corner" in shown
    told = AuditOptions(framed(tmp_path / "set", bright=True), probes="corner, border", **FAST)
    found = audit(told, settings)["parts"]["probes"]
    assert list(found["content"]["probes"]) == ["corner", "border"]
    assert found["content"]["probes"]["corner"]["raised"]
    assert [finding["level"] for finding in found["findings"]] == ["alarm"]


def test_a_model_of_other_classes_is_refused(place, tmp_path, settings):
    folder, study = place
    manifest = read_manifest(study.folder)
    rows = [{**row, "label": row["label"].upper()} for row in manifest.rows]
    write_manifest(tmp_path / "m.csv", manifest.columns, rows)
    with pytest.raises(InputError, match="expected the classes"):
        audit(AuditOptions(tmp_path / "m.csv", run=folder / "run", images=0, **FAST), settings)
