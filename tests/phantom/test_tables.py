"""The rows of a set that is being drawn, and what a killed process leaves of them."""

import csv

import numpy as np
import pytest

from cxrtool.phantom.cohort import Cohort, draw_shots
from cxrtool.phantom.subject import KINDS, Drawing
from cxrtool.phantom.tables import METADATA, TABLES, TRUTH, TRUTHS, Rows, describe


def drawing(extent, kinds=()):
    grey, mask = np.zeros((4, 4), np.float32), np.zeros((4, 4), np.uint8)
    lesions = mask.copy()
    lesions.flat[: len(kinds)] = [KINDS[kind] for kind in kinds]
    return Drawing(grey, grey, mask, mask, mask, lesions, (0.25, 1 / 3), extent)


@pytest.fixture
def begun(tmp_path):
    """The rows of six images, each with a file of its own size."""
    rows = Rows(tmp_path)
    for number, shot in enumerate(draw_shots(Cohort(6))):
        files = {"path": tmp_path / f"{shot.image_id}.png", "mask": tmp_path / f"{shot.image_id}_m.png"}
        for path in files.values():
            path.write_bytes(bytes(number + 1))
        rows.add(describe(shot, drawing((0, 0)), files, tmp_path), 2 * (number + 1))
    rows.close()
    return rows


def test_a_row_tells_what_was_measured_not_what_was_wanted(tmp_path):
    shot = next(shot for shot in draw_shots(Cohort(60)) if shot.subject.label == "covid" and sum(shot.subject.extent))
    files = {"path": tmp_path / "images" / "x.png"}
    row = describe(shot, drawing((3, 4), ["nodule", "ground-glass"]), files, tmp_path)
    assert (row["extent"], row["extent_right"], row["extent_left"]) == ("7", "3", "4")
    assert row["severity"] == "severe"
    assert (row["share_right"], row["share_left"]) == ("0.2500", "0.3333")
    assert row["lesion_kinds"] == "ground-glass;nodule"
    assert row["path"] == "images/x.png"
    assert describe(shot, drawing((0, 0)), files, tmp_path)["severity"] == "normal-pcr+"
    other = next(shot for shot in draw_shots(Cohort(60)) if shot.subject.label == "pathological")
    assert describe(other, drawing((3, 4)), files, tmp_path)["severity"] == ""


def test_the_tables_hold_what_was_noted(begun, tmp_path):
    begun.write_tables()
    for name, columns in TABLES.items():
        with (tmp_path / name).open(newline="", encoding="utf-8") as file:
            read = list(csv.reader(file))
        assert read[0] == list(columns)
        assert [line[0] for line in read[1:]] == [row["path"] for row in begun]
    assert not set(METADATA) & {*TRUTHS, "planted", "twin_of", "bytes"}, "a real set tells no truth"
    assert set(TRUTHS) < set(TRUTH)


def test_an_opened_file_goes_on(begun, tmp_path):
    again = Rows(tmp_path)
    assert again.done == 6
    again.add({"path": "other.png"}, 3)
    again.close()
    paths = [row["path"] for row in again]
    assert (len(paths), paths[:6], paths[6]) == (7, [row["path"] for row in begun][:6], "other.png")


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_line_cut_short_does_not_count(begun, tmp_path, cut):
    whole = begun.path.read_bytes()
    begun.path.write_bytes(whole[:-cut])
    again = Rows(tmp_path)
    again.close()
    assert again.done == 5
    assert begun.path.read_bytes() == b"".join(whole.splitlines(keepends=True)[:5])


@pytest.mark.parametrize("harm", ["gone", "cut", "longer"])
@pytest.mark.parametrize("suffix", [".png", "_m.png"])
def test_what_comes_after_a_file_that_is_not_whole_is_done_again(begun, tmp_path, harm, suffix):
    third = sorted(tmp_path.glob("p*-?.png"))[2]
    harmed = third.with_name(third.stem + suffix)
    if harm == "gone":
        harmed.unlink()
    else:
        harmed.write_bytes(bytes(1 if harm == "cut" else 9))
    again = Rows(tmp_path)
    again.close()
    assert again.done == 2


@pytest.mark.parametrize("junk", [b"\0" * 4096, b"\xff\xfe,,\n", b"\n", b'"\n', b"a,b,c\n"])
def test_junk_at_the_end_is_cut_off(begun, tmp_path, junk):
    whole = begun.path.read_bytes()
    begun.path.write_bytes(whole + junk)
    again = Rows(tmp_path)
    again.close()
    assert again.done == 6
    assert begun.path.read_bytes() == whole
