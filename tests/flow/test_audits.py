import json
import os

import pytest

from cxrtool.auditing.part import CLEAR, Finding, Part
from cxrtool.data.file_names import AUDIT
from cxrtool.data.tables.manifest import write_table
from cxrtool.errors import InputError
from cxrtool.flow.audits import audit_of, audits_near, digests_of, read_audit


def lay(folder, rows, *, headline=("Nothing was found.",), age=0):
    folder.mkdir(parents=True)
    (folder / AUDIT).write_text(json.dumps({"headline": list(headline), "parts": {}}))
    write_table(folder / "manifest.csv", ["image_id", "path", "label"], rows)
    stamp = (folder / AUDIT).stat().st_mtime - age
    os.utime(folder / AUDIT, (stamp, stamp))
    return folder


def rows(*ids, label="covid", **more):
    return [{"image_id": name, "path": f"{name}.png", "label": label, **more} for name in ids]


def test_the_latest_audit_that_knows_every_image_under_its_label(tmp_path):
    lay(tmp_path / "old", rows("a", "b", "c"), headline=["old"], age=100)
    lay(tmp_path / "new", rows("a", "b", "c"), headline=["new"])
    lay(tmp_path / "other", rows("a"), headline=["fewer images"])
    lay(tmp_path / "relabelled", rows("a", "b", "c", label="normal"), headline=["other labels"])
    files = audits_near([tmp_path / "run"])
    assert len(files) == 4
    assert audit_of(rows("a", "b"), files, []).summary() == {"folder": str(tmp_path / "new"), "lines": ["new"]}
    assert audit_of(rows("a", "x"), files, []) is None
    assert audit_of([], files, []) is None


def test_images_made_of_others_and_twins_count_as_the_radiograph(tmp_path):
    files = [lay(tmp_path / "audit", rows("a")) / AUDIT]
    made = rows("a_r0f1", parent_id="a", repeat="0", fold="1")
    assert audit_of(made, files, []) is not None
    twin = rows("a_r0f1_normal", label="covid@normal", parent_id="a", generator="normal", repeat="0", fold="1")
    assert audit_of(twin, files, []) is not None
    assert audit_of(rows("a_r0f1"), files, []) is None


def test_it_is_looked_for_beside_what_a_run_was_trained_on(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    run = tmp_path / "far" / "deep" / "away" / "run"
    run.mkdir(parents=True)
    lay(tmp_path / "data" / "audit", rows("a"))
    assert audits_near([run]) == []
    told = {"command": "train", "options": {"manifest": {"value": str(tmp_path / "data" / "m.csv"), "origin": "flag"}}}
    (run / "run.json").write_text(json.dumps(told))
    assert audits_near([run]) == [tmp_path / "data" / "audit" / AUDIT]


def test_a_damaged_audit_is_passed_over(tmp_path):
    broken = lay(tmp_path / "broken", rows("a"))
    (broken / AUDIT).write_text("{")
    sound = lay(tmp_path / "sound", rows("a"), age=50)
    assert audit_of(rows("a"), audits_near([tmp_path / "run"]), []).folder == sound
    with pytest.raises(InputError, match="cxrtool audit"):
        read_audit(broken)


def test_findings_about_a_model_are_for_that_model_alone(tmp_path):
    part = Part("heatmaps", "Heatmaps", findings=[Finding(CLEAR, "It is quiet.")])
    leakage = Part("leakage", "Leakage", findings=[Finding(CLEAR, "No leak.")])
    for name in ("own", "another"):
        for fold in ("r0f0", "r0f1"):
            (tmp_path / name / fold).mkdir(parents=True)
            (tmp_path / name / fold / "predictions.csv").write_text(f"{name}{fold}")
    folder = lay(tmp_path / "audit", rows("a"))
    own = {"name": "own", "predictions": digests_of(tmp_path / "own" / "r0f0")}
    content = {"about": "a", "model": own, "headline": ["all"]}
    content["parts"] = {one.name: one.as_json() for one in (part, leakage)}
    (folder / AUDIT).write_text(json.dumps(content))
    files = [folder / AUDIT]
    table = tmp_path / "copy.csv"
    table.write_bytes((tmp_path / "own" / "r0f0" / "predictions.csv").read_bytes())
    for source in (tmp_path / "own" / "r0f0", table):
        assert set(audit_of(rows("a"), files, [source]).content["parts"]) == {"heatmaps", "leakage"}
    for sources in ([tmp_path / "another" / "r0f0"], [table, tmp_path / "another" / "r0f0"], [tmp_path / "gone"]):
        found = audit_of(rows("a"), files, sources)
        assert set(found.content["parts"]) == {"leakage"}
        assert found.content["headline"][-1] == "Not shown: what the audit found out about the model own alone."
