import pytest

from cxrtool.data.splitting.splits import (
    COLUMNS,
    MADE_BY,
    dump_splits,
    from_column,
    overlaps,
    read_splits,
    row_digest,
    split_rows,
    splits_digest,
    tabulate,
)
from cxrtool.data.tables.manifest import Manifest, write_table
from cxrtool.errors import InputError


def test_rows_and_file_say_the_same(tmp_path):
    runs = {("0", "0"): {"b": "test", "a": "train"}, ("0", "10"): {"a": "test"}, ("0", "9"): {"a": "validation"}}
    rows = split_rows(runs)
    assert [row["image_id"] for row in rows] == ["a", "b", "a", "a"]
    write_table(tmp_path / "splits.csv", COLUMNS, rows)
    for argument in (tmp_path, tmp_path / "splits.csv"):
        splits = read_splits(argument)
        assert splits.runs == runs
        assert list(splits.runs) == [("0", "0"), ("0", "9"), ("0", "10")]
        assert splits.ids() == {"a", "b"}


def test_how_splits_were_made_is_beside_the_assignment_and_no_part_of_it(tmp_path):
    runs = {("0", "0"): {"a, b": "train", 'c"': "test"}, ("0", "1"): {"a, b": "test"}}
    old, new, joined = (tmp_path / name for name in ("old.csv", "new.csv", "joined.csv"))
    write_table(old, COLUMNS, split_rows(runs))
    new.write_text(dump_splits(split_rows(runs), ["split --folds 2 --stratify label,severity"]))
    assert new.read_text().splitlines()[0] == ",".join((*COLUMNS, MADE_BY))
    assert all(line.endswith(",") for line in new.read_text().splitlines()[2:])
    assert read_splits(old).made_by == []
    assert read_splits(new).made_by == ["split --folds 2 --stratify label,severity"]
    assert read_splits(new).runs == read_splits(old).runs == runs
    assert splits_digest(new) == splits_digest(old)
    joined.write_text(dump_splits(split_rows(runs), ["split --seed 1", "split --seed 2", "split --seed 1"]))
    assert read_splits(joined).made_by == ["split --seed 1", "split --seed 2"]
    assert splits_digest(joined) == splits_digest(old)
    write_table(joined, COLUMNS, split_rows({("0", "0"): runs["0", "0"]}))
    assert splits_digest(joined) != splits_digest(old)
    assert dump_splits([], ["split --seed 1"]) == ",".join((*COLUMNS, MADE_BY)) + "\n"


def test_label_and_patient_of_each_image_are_recorded_once_and_no_part_of_the_assignment(tmp_path):
    runs = {("0", "0"): {"a": "train", "b": "test"}, ("0", "1"): {"a": "test", "b": "train"}}
    images = [{"image_id": "a", "label": "covid", "patient_id": "p1"}, {"image_id": "b", "label": "normal"}]
    old, new = tmp_path / "old.csv", tmp_path / "new.csv"
    old.write_text(dump_splits(split_rows(runs), ["split --folds 2"]))
    new.write_text(dump_splits(split_rows(runs), ["split --folds 2"], images))
    digests = {"a": row_digest(images[0]), "b": row_digest(images[1])}
    assert [line.rpartition(",")[2] for line in new.read_text().splitlines()] == [
        "row_digest",
        *digests.values(),
        "",
        "",
    ]
    assert read_splits(new).row_digests == digests
    assert read_splits(old).row_digests == {}
    assert splits_digest(new) == splits_digest(old)
    others = [{**images[0], "label": "normal"}, {**images[0], "patient_id": "p2"}]
    assert len({row_digest(row) for row in (images[0], *others)}) == 3


def test_words_of_other_tools_are_understood(tmp_path):
    (tmp_path / "s.csv").write_text("image_id,subset\na,Training\nb,val\nc,valid\nd, TEST\n")
    assert list(read_splits(tmp_path / "s.csv").runs[("0", "0")].values()) == [
        "train",
        "validation",
        "validation",
        "test",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("image_id,fold\na,0\n", "expected a column 'subset'"),
        ("image_id,subset\na,train\na,held\n", "line 3: expected the subset train, validation or test, found 'held'"),
        ("image_id,subset\na,train\na,test\n", "line 3: 'a' is listed in two subsets of repeat 0, fold 0"),
        ("image_id,subset\n", "expected rows of image_id, repeat, fold, subset, found none"),
    ],
)
def test_what_is_no_split_is_refused(tmp_path, text, told):
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(InputError, match=told):
        read_splits(tmp_path / "s.csv")


def test_overlaps_are_found_through_patients_parents_and_pixels():
    rows = [
        {"image_id": "a", "patient_id": "P"},
        {"image_id": "b", "patient_id": "p "},
        {"image_id": "c", "parent_id": "d"},
        {"image_id": "d"},
        {"image_id": "e", "sha256": "1"},
        {"image_id": "f", "sha256": "1"},
        {"image_id": "g"},
    ]
    sides = dict.fromkeys("ace", "train") | dict.fromkeys("bdfg", "test")
    assert [[row["image_id"] for row in group] for group in overlaps(rows, sides)] == [
        ["a", "b"],
        ["c", "d"],
        ["e", "f"],
    ]
    assert overlaps(rows, dict.fromkeys("abcdefg", "test")) == []
    # An image that the split leaves out joins its group, but stands on no side.
    assert overlaps(rows, {"a": "train", "d": "test"}) == []


def test_a_column_names_the_subset():
    rows = [{"image_id": str(i), "part": part} for i, part in enumerate(["train", "Val", "", "TESTING"])]
    assert from_column(rows, "part", str) == {"0": "train", "1": "validation", "3": "test"}
    rows[1]["part"] = "other"
    with pytest.raises(InputError, match="1: expected a subset in 'part', found 'other'"):
        from_column(rows, "part", str)


def test_the_table_counts_images_patients_and_classes(make_rows):
    manifest = Manifest([], make_rows(8, per_patient=2))
    ids = manifest.column("image_id")
    subsets = dict.fromkeys(ids[:6], "train") | dict.fromkeys(ids[6:], "test") | {"stranger": "test"}
    columns, rows = tabulate(manifest, {("0", "0"): subsets}, names={("0", "0"): "north"})
    assert columns == ["fold", "subset", "images", "patients", "covid", "normal"]
    assert rows == [["r0f0 north", "train", "6", "3", "4", "2"], ["r0f0 north", "test", "2", "1", "0", "2"]]


def test_ids_that_no_image_has_are_an_empty_table(make_rows):
    assert tabulate(Manifest([], make_rows(4)), {("0", "0"): {"stranger": "test"}})[1] == []


def test_many_folds_are_shown_as_ranges(make_rows):
    manifest = Manifest([], make_rows(8, per_patient=1))
    ids = manifest.column("image_id")
    runs = {("0", str(f)): dict.fromkeys(ids[: f + 1], "train") | dict.fromkeys(ids[7:], "test") for f in range(7)}
    _, rows = tabulate(manifest, runs)
    assert rows == [["all 7", "train", "1-7", "1-7", "1-4", "0-3"], ["all 7", "test", "1", "1", "0", "1"]]


def test_what_was_made_for_a_fold_counts_in_it_alone_and_as_its_original(make_rows):
    rows = [
        {**row, "image_id": f"{row['image_id']}_r0f{fold}", "parent_id": row["image_id"], "repeat": "0", "fold": fold}
        for fold in "01"
        for row in make_rows(8, per_patient=2)
    ]
    names = [row["parent_id"] for row in rows[:8]]
    runs = {("0", f): dict.fromkeys(names[: 4 + int(f)], "train") | {names[7]: "test"} for f in "01"}
    _, table = tabulate(Manifest([], rows), runs)
    assert [line[:4] for line in table] == [
        ["r0f0", "train", "4", "2"],
        ["r0f0", "test", "1", "1"],
        ["r0f1", "train", "5", "3"],
        ["r0f1", "test", "1", "1"],
    ]
    assert overlaps(rows, runs["0", "0"]) == []
    assert len(overlaps(rows, {**runs["0", "0"], names[0]: "test"})) == 1
