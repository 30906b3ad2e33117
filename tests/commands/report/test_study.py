import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from cxrtool.commands.report.making import command_lines
from cxrtool.commands.report.study import NO_REASON, Source, Study, flow_of, radiographs
from cxrtool.data.splitting.splits import Splits
from cxrtool.data.tables.manifest import Row, read_manifest, write_table
from cxrtool.flow.folder import read_run_file
from cxrtool.flow.origins import base_of, inputs_of, manifest_of_run, trace


def lay(folder: Path, command: str, argv: list[str], rows: list[Row], rejects: list[Row] = (), **told) -> Path:
    """A step's folder as `run.json` and tables tell it."""
    folder.mkdir(parents=True)
    write_table(folder / "manifest.csv", ["image_id", "path", "label", "patient_id"], rows)
    write_table(folder / "rejects.csv", ["path", "reason"], rejects)
    made = {"command": command, "argv": ["cxrtool", command, *argv], "options": {}, "counts": {}, **told}
    (folder / "run.json").write_text(json.dumps(made))
    return folder


def rows(count, folder="images"):
    return [
        {"image_id": f"i{k}", "path": f"{folder}/i{k}.png", "label": "ab"[k % 2], "patient_id": f"p{k // 2}"}
        for k in range(count)
    ]


@pytest.fixture
def project(tmp_path):
    """A project: prepared, chosen into a plain file, segmented, trained on; all called from `tmp_path/work`."""
    work = tmp_path / "work"
    lay(
        work / "data/prepared",
        "prepare",
        ["raw", "-o", "data/prepared"],
        rows(10),
        [{"path": "raw/x.png", "reason": "'x' is no image"}, {"path": "raw/y.png", "reason": "'y' is no image"}],
        counts={"inputs": 12},
    )
    write_table(work / "chosen.csv", ["image_id", "path", "label", "patient_id"], rows(9, "data/prepared/images"))
    lay(
        work / "data/cut",
        "segment",
        ["--crop", "chosen.csv", "-o", "data/cut"],
        rows(8),
        [{"path": "../prepared/images/i8.png", "reason": "no lungs found"}],
    )
    lay(
        work / "runs/one",
        "train",
        ["data/cut", "--splits", "chosen.csv", "-o", "runs/one"],
        rows(8),
        options={"manifest": {"value": "data/cut", "origin": "flag"}},
    )
    return work


def read(project, run="runs/one"):
    place = project / run
    return trace(manifest_of_run(place, read_run_file(place)), read_manifest(place).rows)


def test_a_run_is_traced_to_its_source(project):
    found = read(project)
    assert [(origin.command, origin.path.name) for origin in found] == [
        ("prepare", "prepared"),
        ("", "chosen.csv"),
        ("segment", "cut"),
    ]


def test_a_project_that_was_moved_is_traced_as_well(project, tmp_path):
    shutil.move(project, tmp_path / "elsewhere")
    assert len(read(tmp_path / "elsewhere")) == 3


def test_the_manifest_is_told_from_what_options_name(project):
    lay(project / "other", "transform", [], rows(2))
    made = {
        "command": "transform",
        "argv": ["cxrtool", "transform", "--generators", "other", "data/cut", "-o", "out/t"],
    }
    assert inputs_of(project / "out/t", made) == [project / "data/cut"]
    assert base_of(project / "out/t", made) == project
    assert base_of(project / "renamed", made) is None, "who gave it another name tells nothing of where it was made"


def test_a_chain_that_bites_its_tail_ends(project):
    (project / "data/prepared/run.json").write_text(
        json.dumps({"command": "select", "argv": ["cxrtool", "select", "data/cut", "-o", "data/prepared"]})
    )
    assert len(read(project)) == 3


def test_what_is_gone_ends_the_chain_and_nothing_else(project):
    shutil.rmtree(project / "data/prepared")
    assert [origin.path.name for origin in read(project)] == ["chosen.csv", "cut"]
    (project / "chosen.csv").unlink()
    assert [origin.path.name for origin in read(project)] == ["cut"]
    assert trace([], rows(1, "/nowhere/images")) == []


def test_the_flow_counts_what_was_left_out_and_why(project):
    flow = flow_of(read(project), radiographs(read_manifest(project / "runs/one").rows), None, [], rows(8))
    told = [(stage.title, stage.images, stage.patients, list(stage.exclusions)) for stage in flow.stages]
    assert told == [
        ("files of the source", 12, None, []),
        ("read as grey images (prepare)", 10, 5, [(2, "… is no image")]),
        ("listed in chosen.csv", 9, 5, [(1, NO_REASON)]),
        ("lungs found (segment)", 8, 4, [(1, "no lungs found")]),
        ("evaluated", 8, 4, []),
    ]


def test_versions_and_twins_of_a_radiograph_are_one():
    found = radiographs(
        [
            {"image_id": "a_r0f0", "parent_id": "a", "repeat": "0", "fold": "0", "label": "P"},
            {"image_id": "a_r0f1", "parent_id": "a", "repeat": "0", "fold": "1", "label": "P"},
            {"image_id": "b_r0f0_P", "parent_id": "b", "generator": "P", "label": "N@P"},
            {"image_id": "b_r0f0_N", "parent_id": "b", "generator": "N", "label": "N@N"},
        ]
    )
    assert [(row["image_id"], row["label"]) for row in found] == [("a", "P"), ("b", "N")]


def test_the_division_has_the_paths_of_the_step_that_used_it():
    options = {"manifest": {"value": "my data"}, "splits": {"value": "out/s.csv"}}
    made = {"command": "train", "argv": ["cxrtool", "train", "my data", "--splits", "out/s.csv"], "options": options}
    study = Study([], [], [], "", Splits({}, made_by=["split --folds 2"]), [], None, made, {}, {})
    assert command_lines(study) == [
        "cxrtool split 'my data' --folds 2 -o out/s.csv",
        "cxrtool train 'my data' --splits out/s.csv",
    ]
    piped = replace(study, splits=Splits({}, made_by=["split --folds 2 | split --within -"]))
    assert command_lines(piped)[0] == "cxrtool split --folds 2 | cxrtool split --within -"


def test_a_training_that_divided_the_images_itself_is_one_command(project):
    made = read_run_file(project / "runs/one")
    made["options"]["splits"] = {"value": "runs/one/splits.csv", "origin": "default"}
    study = Study([], [], [], "", Splits({}, made_by=["split --folds 2"]), read(project), None, made, {}, {})
    inside = Source("", project / "data", project / "data/prepared", [], [])
    lines = command_lines(replace(study, sources=[inside]))
    assert [line.split()[1] for line in lines] == ["segment", "train"], "what is inside the run was made by it"


def test_the_division_is_before_the_first_command_that_uses_it(project):
    origins = read(project)
    made = read_run_file(project / "runs/one")
    splits = Splits({}, made_by=["split --folds 2", "split --folds 3"])

    def commands():
        lines = command_lines(Study([], [], [], "", splits, origins, None, made, {}, {}))
        return [line.split()[1] for line in lines]

    assert commands() == ["prepare", "segment", "split", "split", "train"]
    origins[-1].made["argv"].append("--splits=chosen.csv")
    assert commands() == ["prepare", "split", "split", "segment", "train"]
    made["argv"], origins = ["cxrtool", "train"], []
    assert commands() == ["split", "split", "train"]
