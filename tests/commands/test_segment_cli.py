import csv
import json

import cv2
import numpy as np
import pytest


@pytest.fixture
def call(cxr, chests, lung_part, tmp_path):
    def call(*more, out="out"):
        shared = ("--workers", 1, "--threads", 1)
        return cxr("segment", chests.origin.parent, "--lungs", lung_part, *shared, *more, "-o", tmp_path / out)

    return call


def test_everything_at_once_and_a_second_time_nothing(call, tmp_path):
    asked = (
        "--crop",
        "--margin",
        0.05,
        "--margin-of",
        "box",
        "--apply-mask",
        "--tta",
        "--threshold",
        0.4,
        "--batch-size",
        7,
        "--sheet",
        5,
    )
    outcome = call(*asked)
    assert (outcome.code, outcome.out) == (0, "")
    assert "Dice with the masks of the manifest: 0.9" in outcome.err
    made = json.loads((tmp_path / "out" / "run.json").read_text())
    options = {name: entry["value"] for name, entry in made["options"].items()}
    assert (options["margin"], options["margin_of"], options["tta"], options["threshold"]) == (0.05, "box", True, 0.4)
    assert made["options"]["crop"] == {"value": True, "origin": "flag"}
    assert made["options"]["erase_lungs"] == {"value": False, "origin": "default"}
    with (tmp_path / "out" / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["path"] == "images/im000.png"
    assert rows[0]["mask"] == "masks/im000.png"
    assert rows[0]["mask_reference"] == "references/im000.png"
    assert cv2.imread(str(tmp_path / "out" / "sheets" / "lungs.png")).std() > 10
    assert cv2.imread(str(tmp_path / "out" / "sheets" / "worst.png")).std() > 10
    assert call(*asked).err.endswith("out: up to date, nothing to do\n")


def test_doubtful_masks_are_told_listed_and_shown(call, chests, tmp_path):
    cv2.imwrite(chests.rows[0]["path"], np.full((96, 88), 90, np.uint8))
    one_lung = cv2.imread(chests.rows[1]["path"], cv2.IMREAD_UNCHANGED)
    one_lung[:, 44:] = 180
    cv2.imwrite(chests.rows[1]["path"], one_lung)
    outcome = call()
    assert outcome.code == 0
    assert "2 of 24 images have no plausible lung mask" in outcome.err
    assert "1 x no lungs found\n" in outcome.err
    assert "1 x only one\n" in outcome.err
    assert (tmp_path / "out" / "sheets" / "warnings.png").is_file()
    assert not (tmp_path / "out" / "images").exists()


def test_without_sheets_none_is_drawn(call, tmp_path):
    assert call("--sheet", 0).code == 0
    assert not (tmp_path / "out" / "sheets").exists()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (("--apply-mask", "--erase-lungs"), "choose one"),
        (("--margin", "2"), "--margin: expected a share from 0 to 1, found 2.0"),
        (("--precision", "fp16"), "--precision: expected one of auto, fp32, bf16"),
        (("--device", "tpu"), "--device: expected auto, cpu"),
    ],
)
def test_wrong_options_are_usage_errors(call, tmp_path, wrong, told):
    outcome = call(*wrong)
    assert outcome.code == 2
    assert told in outcome.err
    assert not (tmp_path / "out").exists()


def test_an_output_of_another_command_is_not_touched(call, chests, tmp_path):
    outcome = call(out="chests")
    assert outcome.code == 2
    assert "expected another place than the input" in outcome.err
    assert chests.origin.exists()
