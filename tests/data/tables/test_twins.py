import itertools

import pytest

from cxrtool.data.tables.twins import (
    labels_of,
    radiograph_id,
    split_class,
    twin_class,
    twin_classes,
    twin_id,
    twin_rows,
)
from cxrtool.errors import InputError


def test_a_twin_is_named_after_its_radiograph_fold_and_generator():
    rows = twin_rows({"image_id": "a", "label": "P", "path": "/a.png", "view": "PA"}, "1", "12", ["P", "N"])
    assert [row["image_id"] for row in rows] == ["a_r1f12_P", "a_r1f12_N"]
    for row, generator in zip(rows, "PN", strict=True):
        told = {"parent_id": "a", "generator": generator, "repeat": "1", "fold": "12"}
        assert row == {"image_id": row["image_id"], "label": "P", "path": "/a.png", "view": "PA", **told}
        assert radiograph_id(row) == "a"
    assert radiograph_id({"image_id": "a", "parent_id": "b"}) == "a"


def test_what_was_made_for_a_fold_has_its_original_as_parent():
    derived = {"image_id": "a_r0f1", "parent_id": "a", "repeat": "0", "fold": "1"}
    assert [(row["image_id"], row["parent_id"]) for row in twin_rows(derived, "0", "1", ["P"])] == [("a_r0f1_P", "a")]
    # A copy that is valid in all folds is a radiograph of its own.
    copy = {"image_id": "b", "parent_id": "a"}
    assert [(row["image_id"], row["parent_id"]) for row in twin_rows(copy, "", "", ["P"])] == [("b_P", "b")]


def test_ids_are_safe_and_no_two_generators_share_one():
    names = ["P+", "P-", "P", "COVID 19", "COVID/19", "../P", "é", "con"]
    ids = [twin_id("a", "0", "0", name) for name in names]
    assert len(set(ids)) == len(names)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") for name in ids)
    assert ids[2] == "a_r0f0_P"
    longest = twin_id("x" * 120, "99", "99", "g" * 300)
    assert len(f"{longest}.png") <= 255


def test_classes_are_label_major_and_read_back():
    labels, generators = ["covid", "normal", "a@b"], ["n", "c"]
    classes = twin_classes(labels, generators)
    assert [split_class(name) for name in classes] == list(itertools.product(labels, generators))
    assert labels_of(classes) == labels
    assert twin_class("", "covid") == ""


@pytest.mark.parametrize("name", ["covid", "@covid", "covid@", ""])
def test_what_is_no_class_of_twins_is_refused(name):
    with pytest.raises(InputError, match=rf"expected a class of twins such as covid@covid, found '{name}'"):
        labels_of(["covid@covid", name])
