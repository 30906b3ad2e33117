import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from cxrtool.auditing.leakage import DRAWN_PAIRS, draw_pairs, examine, likely_chance, pairs_of, radiographs
from cxrtool.auditing.part import ALARM, CLEAR, NOTE, UNKNOWN, WARNING
from cxrtool.data.splitting.splits import overlaps
from cxrtool.imaging.hashing import dhash, pixel_sha256


def fingerprint(number, flips=0):
    """256 random bits, of which the first few are turned."""
    bits = np.random.default_rng(number).integers(0, 2, 256)
    bits[:flips] ^= 1
    return np.packbits(bits).tobytes().hex()


@pytest.fixture
def rows(make_rows):
    """48 images of 24 patients and 2 labels, no two alike."""
    return [
        row | {"sha256": f"{index:064x}", "dhash": fingerprint(index), "source": "a"}
        for index, row in enumerate(make_rows(48))
    ]


@pytest.fixture
def folds(rows):
    """Three folds by patient."""
    return {("0", str(fold)): by_patient(rows, fold) for fold in range(3)}


def by_patient(rows, fold):
    names = {"test": fold, "validation": (fold + 1) % 3}
    parts = [int(row["patient_id"].removeprefix("p:")) % 3 for row in rows]
    return {
        row["image_id"]: next((name for name, k in names.items() if k == part), "train")
        for row, part in zip(rows, parts, strict=True)
    }


def texts(part, level):
    return [finding.text for finding in part.findings if finding.level == level]


def across(part):
    return {name: found["count"] for name, found in part.content["across_subsets"].items()}


def test_a_clean_set_is_clear(rows, folds):
    part = examine(rows, folds)
    assert [finding.level for finding in part.findings] == [CLEAR, CLEAR]
    assert "No patient and no image is in two subsets of any of the 3 folds." in texts(part, CLEAR)
    assert part.content["pairs"] == []
    json.dumps(part.as_json())


def test_patients_on_two_sides_are_those_that_splits_refuse(rows):
    generator = np.random.default_rng(0)
    runs = {
        ("0", str(fold)): {row["image_id"]: ("train", "test")[generator.integers(2)] for row in rows}
        for fold in range(2)
    }
    part = examine(rows, runs)
    leaking = {row["patient_id"] for subsets in runs.values() for group in overlaps(rows, subsets) for row in group}
    assert across(part)["patients"] == len(leaking) > 0
    (told,) = texts(part, ALARM)
    assert told.startswith(
        f"{len(leaking)} patients of 24 are in two subsets of a fold (train and test; in 2 of 2 folds)"
    )
    assert part.content["across_subsets"]["patients"]["with_test"] == len(leaking)


def test_a_patient_in_training_and_validation_is_no_leak_into_test(rows, folds):
    subsets = folds["0", "0"]
    mover = next(row["image_id"] for row in rows if subsets[row["image_id"]] == "train")
    subsets[mover] = "validation"
    part = examine(rows, {("0", "0"): subsets})
    (told,) = texts(part, ALARM)
    assert "1 patient of 24 is in two subsets of a fold (train and validation)" in told
    assert told.endswith("the model was partly selected on what it was trained on.")
    assert part.content["across_subsets"]["patients"]["with_test"] == 0


@pytest.mark.parametrize(
    ("bits", "kind", "words"), [(None, "same_pixels", "same pixels"), (9, "look_alike", "near-duplicate")]
)
def test_copies_on_two_sides_are_an_alarm(rows, folds, bits, kind, words):
    # 0 and 9 are of patients 0 and 4: of other folds, and of one label.
    rows[9] |= {"sha256": rows[0]["sha256"]} if bits is None else {"dhash": fingerprint(0, bits)}
    part = examine(rows, folds)
    assert across(part) == {"patients": 0, "radiographs": 0, "same_pixels": 0, "look_alike": 0} | {kind: 1}
    assert [text for text in texts(part, ALARM) if words in text]
    (pair,) = part.content["pairs"]
    assert (pair["first"], pair["second"], pair["bits"], pair["folds_across"]) == ("im000", "im009", bits, 3)
    assert pair["sides"] == ["train", "test"] or pair["sides"] == ["validation", "test"]
    assert any("different patients" in text for text in texts(part, WARNING))
    assert not [text for text in texts(part, CLEAR) if "two subsets" in text]


def test_beyond_the_threshold_nothing_looks_alike(rows, folds):
    rows[9]["dhash"] = fingerprint(0, 13)
    assert not examine(rows, folds).content["pairs"]
    assert len(examine(rows, folds, bits=13).content["pairs"]) == 1


def test_copies_with_two_labels_or_sources_are_a_warning_wherever_they_are(rows):
    rows[2] |= {"sha256": rows[0]["sha256"], "source": "b"}
    part = examine(rows, None)
    told = texts(part, WARNING)
    assert len(told) == 3
    assert all(any(f"different {what}" in text for text in told) for what in ("labels", "patients", "sources"))
    assert part.content["copies"]["same_pixels"] == {"count": 1, "two_labels": 1, "two_patients": 1, "two_sources": 1}
    assert not texts(part, ALARM)
    assert any("No split was given" in text for text in texts(part, UNKNOWN))


def test_copies_of_one_patient_and_label_are_a_note(rows, folds):
    rows[1]["sha256"] = rows[0]["sha256"]
    part = examine(rows, folds)
    assert texts(part, NOTE) == [
        "1 pair of identical or near-duplicate images: the same radiograph is listed twice, such as im000 and im001."
    ]
    assert not texts(part, ALARM) + texts(part, WARNING)


def test_versions_of_a_radiograph_are_that_radiograph(rows, folds):
    made = [row | {"image_id": f"{row['image_id']}_e", "parent_id": row["image_id"]} for row in rows]
    part = examine(rows + made, folds)
    assert part.content["images"] == 48
    assert [finding.level for finding in part.findings] == [CLEAR, CLEAR]
    split = {
        run: subsets | {"im000_e": "train" if subsets["im000"] == "test" else "test"} for run, subsets in folds.items()
    }
    assert across(examine(rows + made, split))["radiographs"] == 1


def test_what_was_made_for_a_fold_counts_in_that_fold_alone(rows, folds):
    made = [
        row | {"image_id": f"{row['image_id']}_f{fold}", "parent_id": row["image_id"], "repeat": "0", "fold": fold}
        for row in rows
        for fold in ("0", "1", "2")
    ]
    assert [finding.level for finding in examine(made, folds).findings] == [CLEAR, CLEAR]


def test_look_alikes_may_be_chance_where_nearly_alike_ones_are_common():
    # 40 patients whose pictures lie 14 to 24 bits from one another, and one pair at 10.
    base = np.random.default_rng(0).integers(0, 2, 256)
    rows = []
    for index in range(40):
        bits = base.copy()
        start = 6 * index if index else 3
        bits[start : start + (4 if index < 2 else 9)] ^= 1
        rows.append(
            {
                "image_id": f"i{index}",
                "path": "/x",
                "label": "a",
                "patient_id": f"p{index}",
                "sha256": str(index),
                "dhash": np.packbits(bits).tobytes().hex(),
            }
        )
    runs = {("0", "0"): {row["image_id"]: ("train", "test")[index % 2] for index, row in enumerate(rows)}}
    images = radiographs(rows)
    pairs = pairs_of(images, runs, 12)
    assert pairs
    assert likely_chance(images, pairs, 12)
    part = examine(rows, runs)
    assert not texts(part, ALARM)
    assert any("need not be copies" in text for text in texts(part, WARNING))
    # The same pairs of one patient are copies, whatever else looks alike.
    for pair in pairs:
        pair.first.row["patient_id"] = pair.second.row["patient_id"] = "p0"
    assert texts(examine(rows, runs), ALARM)


def test_what_is_not_known_is_said(rows, folds):
    bare = [row | {"patient_id": "", "sha256": "", "dhash": ""} for row in rows]
    part = examine(bare, folds)
    assert {finding.level for finding in part.findings} == {UNKNOWN}
    assert len(part.findings) == 2


def test_pairs_are_drawn_side_by_side(tmp_path, rows, folds):
    paths = {}
    for index, row in enumerate(rows[:30]):
        picture = np.full((60 + index, 80), 40 + 60 * (index % 2), np.uint8)
        picture[:, : 10 + index // 2] = 200
        row |= {"path": str(tmp_path / f"{index}.png"), "sha256": f"{index // 2}"}
        cv2.imwrite(row["path"], picture)
        paths[row["image_id"]] = row["path"]
    Path(rows[0]["path"]).write_bytes(b"broken")
    pairs = examine(rows, folds).content["pairs"]
    assert len(pairs) == 15
    assert draw_pairs(pairs, paths, tmp_path / "pairs.png") == DRAWN_PAIRS
    drawn = cv2.imread(str(tmp_path / "pairs.png"))
    # Twelve pairs in two columns, all of which hold something.
    assert drawn.shape[1] > 4 * 240
    cells = [drawn[40 + row * 300 : 260 + row * 300] for row in range(6)]
    assert all((cell < 200).mean() > 0.1 for cell in cells)


def test_where_there_is_no_pair_there_is_no_picture(tmp_path):
    assert draw_pairs([], {}, tmp_path / "pairs.png") == 0
    assert not (tmp_path / "pairs.png").exists()


def test_a_brightened_and_recompressed_copy_is_found_by_its_pixels(tmp_path, rows, folds):
    generator = np.random.default_rng(1)
    picture = cv2.resize(generator.integers(0, 200, (12, 12), np.uint8), (240, 200), interpolation=cv2.INTER_CUBIC)
    _, coded = cv2.imencode(".jpg", cv2.convertScaleAbs(picture, alpha=1.1, beta=8), [cv2.IMWRITE_JPEG_QUALITY, 60])
    copy = cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE)
    for index, pixels in ((0, picture), (9, copy)):
        rows[index] |= {"sha256": pixel_sha256(pixels), "dhash": dhash(pixels)}
    (pair,) = examine(rows, folds).content["pairs"]
    assert (pair["first"], pair["second"]) == ("im000", "im009")
