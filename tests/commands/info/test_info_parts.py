import json

import pytest

from cxrtool.commands.info import InfoOptions, info
from cxrtool.data.tables.manifest import write_table
from cxrtool.errors import InputError
from cxrtool.flow.settings import Settings
from cxrtool.imaging.fits import Form
from cxrtool.models.parts import networks, save_part


@pytest.fixture
def part(tmp_path):
    def make(folder=tmp_path / "part", kind="lungs"):
        network = next(iter(networks(kind)))
        told = {"figures": {"validation": {"dice": 0.95}}}
        built = {"classes": ["covid", "normal"]} if kind == "generators" else {}
        module = networks(kind)[network].build(**built)
        save_part(folder, kind, network, module, Form(64, "pad", invert=True), told, built_with=built)
        return folder

    return make


@pytest.mark.parametrize(
    ("kind", "words", "command"),
    [
        ("lungs", "lung network", "segment MANIFEST --lungs"),
        ("ribs", "rib-suppressing network", "suppress-ribs --ribs"),
        ("generators", "class-inherent generators", "transform MANIFEST --generators"),
    ],
)
def test_a_part_tells_what_it_is_and_what_takes_it(part, kind, words, command):
    folder = part(kind=kind)
    seen = [{"image_id": "a", "patient_id": "p", "sha256": "", "subset": "train"}]
    write_table(folder / "fitted_on.csv", list(seen[0]), seen)
    found = info(InfoOptions(folder), Settings())
    assert found.kind == words
    assert found.facts["is shown"] == "64 pixels, pad, invert"
    assert found.facts["figures"] == "validation dice 0.95"
    assert found.facts["fitted on"] == "train 1; 1 patient"
    assert command in found.next


def test_a_damaged_part_is_told(part):
    folder = part()
    (folder / "part.json").write_text(json.dumps({"kind": "hearts"}))
    with pytest.raises(InputError, match="found 'hearts'"):
        info(InfoOptions(folder), Settings())
    (folder / "part.json").write_text("{")
    with pytest.raises(InputError, match="not readable JSON"):
        info(InfoOptions(folder), Settings())


def test_a_run_of_parts_tells_its_folds_and_figures(part, tmp_path):
    run = tmp_path / "run"
    part(run / "r0f0")
    rows = [{"image_id": "a", "repeat": "0", "fold": fold, "subset": "test"} for fold in "01"]
    write_table(run / "splits.csv", list(rows[0]), rows)
    (run / "run.json").write_text(json.dumps({"command": "fit", "options": {"kind": {"value": "lungs"}}}))
    found = info(InfoOptions(run), Settings())
    assert found.kind == "run of `cxrtool fit lungs`"
    assert found.facts["folds"] == "1 of 2; missing r0f1"
    part(run / "r0f1")
    summary = [{"fold": "r0f0", "mean dice": "0.9"}, {"fold": "all", "mean dice": "0.91"}]
    write_table(run / "summary.csv", list(summary[0]), summary)
    found = info(InfoOptions(run), Settings())
    assert found.facts["folds"] == "2 of 2, complete"
    assert found.tables == [("", ["fold", "mean dice"], [["r0f0", "0.9"], ["all", "0.91"]])]


def test_parts_of_other_options_do_not_complete_a_run(part, tmp_path):
    run = tmp_path / "run"
    rows = [{"image_id": "a", "repeat": "0", "fold": fold, "subset": "test"} for fold in "01"]
    for fold, digest in (("r0f0", "new"), ("r0f1", "old")):
        part(run / fold)
        (run / fold / "run.json").write_text(json.dumps({"command": "fit", "run_digest": digest}))
    write_table(run / "splits.csv", list(rows[0]), rows)
    told = {"command": "fit", "run_digest": "new", "options": {"kind": {"value": "lungs"}}}
    (run / "run.json").write_text(json.dumps(told))
    found = info(InfoOptions(run), Settings())
    assert found.facts["folds"] == "1 of 2; missing r0f1"
    assert found.next == "run the same `cxrtool fit` again to continue"
