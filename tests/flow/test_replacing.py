"""What an output may replace."""

import os
from pathlib import Path

import pytest

from cxrtool.data.tables.manifest import read_manifest
from cxrtool.errors import TakenError
from cxrtool.flow.folder import Inputs, Plan, StepFolder
from cxrtool.flow.replacing import check_file, check_inputs, is_manifest_file, is_predictions, is_splits
from cxrtool.flow.settings import Settings

FORCED = Settings(force=True)
HEADERS = {
    "splits": "image_id,repeat,fold,subset,made_by\n",
    "manifest": "image_id,path,label\n",
    "predictions": "image_id,path,repeat,fold,subset,label,predicted,prob_a\n",
    "fitted_on": "image_id,patient_id,sha256,repeat,fold,subset\n",
    "notes": "colour\n",
    "run": '{"command": "split"}\n',
    "picture": "\u0089PNG\0",
}
KINDS = {"splits": is_splits, "manifest": is_manifest_file, "predictions": is_predictions}


@pytest.fixture
def files(tmp_path):
    for name, header in HEADERS.items():
        (tmp_path / f"{name}.csv").write_text(header)
    return tmp_path


@pytest.mark.parametrize("kind", KINDS)
def test_a_command_replaces_only_its_own_kind_of_file(files, kind):
    (files / "empty.csv").write_text("")
    for free in (f"{kind}.csv", "empty.csv", "new.csv", "/dev/null"):
        check_file(files / free, KINDS[kind], [], Settings())
    check_file(None, KINDS[kind], [], Settings())
    for other in HEADERS.keys() - {kind}:
        with pytest.raises(TakenError, match="found another file") as refused:
            check_file(files / f"{other}.csv", KINDS[kind], [], Settings())
        assert f"such as -o {files / other}-new.csv, or replace it with --force" in refused.value.hint
        check_file(files / f"{other}.csv", KINDS[kind], [], FORCED)


def test_an_input_is_never_replaced(files, tiny):
    own, images = files / "splits.csv", Path(tiny.rows[0]["path"])
    (files / "link.csv").symlink_to(own)
    os.link(own, files / "hard.csv")
    for target in (own, files / "link.csv", files / "hard.csv"):
        with pytest.raises(TakenError, match="expected another file than the input"):
            check_file(target, is_splits, [own, None], FORCED)
        with pytest.raises(TakenError, match="expected another place than the input"):
            check_inputs(target, [files / "notes.csv", own])
    # An image that a manifest lists, and a file of a model.
    with pytest.raises(TakenError, match="found one that belongs to"):
        check_file(images, is_splits, [tiny], FORCED)
    with pytest.raises(TakenError, match="found one that belongs to"):
        check_file(files / "notes.csv", is_splits, [files], FORCED)
    check_inputs(files / "new.csv", [own, Path("-"), files / "nowhere"])
    # What this command wrote into a folder of its input before.
    check_file(own, is_splits, [files], Settings())


def test_a_part_of_a_step_is_replaced_only_when_asked_for(files):
    (files / "run.json").write_text('{"command": "train"}')
    with pytest.raises(TakenError, match="found one of the folder of `cxrtool train`"):
        check_file(files / "predictions.csv", is_predictions, [], Settings())
    with pytest.raises(TakenError, match="found one of the folder of `cxrtool train`"):
        check_file(files / "splits.csv", is_splits, [], Settings())
    check_file(files / "predictions.csv", is_predictions, [], FORCED)
    with pytest.raises(TakenError, match="belongs to"):
        check_file(files / "predictions.csv", is_predictions, [files], FORCED)
    # Splits that were put into the folder of another step are no part of it.
    (files / "run.json").write_text('{"command": "prepare"}')
    check_file(files / "splits.csv", is_splits, [], Settings())


def test_a_folder_is_no_file(files):
    with pytest.raises(TakenError, match="expected a file to write, found a folder"):
        check_file(files, is_splits, [], FORCED)


def test_a_folder_with_the_inputs_in_it_is_not_replaced(tiny, settings):
    out = tiny.origin.parent
    (out / "run.json").write_text('{"command": "select"}')
    (out / "sub").mkdir()
    inner = out / "sub" / "manifest.csv"
    inner.write_text("image_id,path\na,../im000.png\n")
    for manifest in (tiny, read_manifest(inner)):
        plan = Plan("select", {}, Inputs.of(manifest), libraries=())
        with pytest.raises(TakenError, match="expected a folder without the inputs"):
            StepFolder(out, plan, FORCED).needs_work()
        # The folder of a run is extended, not replaced.
        assert StepFolder(out, plan, FORCED, replaced=False).needs_work()
