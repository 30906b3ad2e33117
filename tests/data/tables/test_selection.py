from collections import Counter

import pytest

from cxrtool.data.tables.manifest import Manifest
from cxrtool.data.tables.selection import (
    Selection,
    concatenate,
    drop_duplicates,
    exclude,
    one_per,
    parse_relabel,
    relabel,
    sample,
)
from cxrtool.errors import CxrtoolError, InputError, UsageError


def manifest_of(*rows, columns=("image_id", "path", "label")):
    return Manifest(list(columns), [dict(zip(columns, row, strict=True)) for row in rows])


def ids(selection):
    return [row["image_id"] for row in selection.rows]


@pytest.fixture
def selection(make_rows):
    return Selection(["image_id", "path", "label", "patient_id"], make_rows(60, ("a", "b", "c"), per_patient=2))


def test_joining_keeps_every_column_and_fills_what_is_missing():
    one = manifest_of(("1", "/a/1.png", "x"))
    two = manifest_of(("2", "/a/2.png", "new"), columns=("image_id", "path", "scanner"))
    joined = concatenate([one, two])
    assert joined.columns == ["image_id", "path", "label", "scanner"]
    assert joined.rows == [
        {"image_id": "1", "path": "/a/1.png", "label": "x", "scanner": ""},
        {"image_id": "2", "path": "/a/2.png", "label": "", "scanner": "new"},
    ]


def test_the_same_image_stands_there_once():
    manifest = manifest_of(("1", "/a/1.png", "x"), ("2", "/a/2.png", "y"))
    assert ids(concatenate([manifest, manifest])) == ["1", "2"]


def test_the_same_image_under_two_labels_is_an_error():
    with pytest.raises(InputError, match="'1' is labelled 'y', but 'x' in standard input"):
        concatenate([manifest_of(("1", "/a/1.png", "x")), manifest_of(("1", "/a/1.png", "y"))])


def test_another_image_of_the_same_id_gets_the_folder_that_differs():
    one = manifest_of(("im1", "/north/images/im1.png", "x"), ("im2", "/north/images/im2.png", "x"))
    two = manifest_of(("IM1", "/south east/images/im1.png", "x"), ("im3", "/south east/images/im3.png", "x"))
    joined = concatenate([one, two])
    assert ids(joined) == ["im1", "im2", "south_east_IM1", "im3"]
    assert joined.warnings == [
        "standard input: 1 id already used by other images and renamed, such as 'IM1' to 'south_east_IM1'"
    ]


def test_where_folders_do_not_help_a_digest_does():
    one = manifest_of(("im1", "/a/im1.png", "x"), ("a_im1", "/a/other.png", "x"))
    two = manifest_of(("im1", "/b/a/im1.jpg", "x"))
    three = manifest_of(("im1", "/a/im1.jpg", "x"))
    names = ids(concatenate([one, two, three]))
    assert names[:3] == ["im1", "a_im1", "b_im1"]
    assert names[3].startswith("im1_")
    assert len(names[3]) == len("im1_") + 8
    assert len(set(names)) == 4


def test_children_follow_a_parent_that_was_renamed():
    columns = ("image_id", "path", "parent_id")
    one = manifest_of(("im1", "/a/im1.png", ""), columns=columns)
    two = manifest_of(("gen1", "/b/gen1.png", "im1"), ("im1", "/b/im1.png", ""), columns=columns)
    rows = {row["image_id"]: row["parent_id"] for row in concatenate([one, two]).rows}
    assert rows == {"im1": "", "gen1": "b_im1", "b_im1": ""}


def test_relabelling_happens_all_at_once(selection):
    relabel(selection, parse_relabel(["a=b", "b,c=a"]))
    assert Counter(row["label"] for row in selection.rows) == {"b": 20, "a": 40}


def test_relabel_is_read_from_the_last_equals_sign():
    assert parse_relabel([" pathological , covid = positive "]) == {"pathological": "positive", "covid": "positive"}
    assert parse_relabel(["a=b=c"]) == {"a=b": "c"}
    for wrong in ("covid", "=x", "covid=", ", =x"):
        with pytest.raises(UsageError, match="expected OLD,OLD=NEW"):
            parse_relabel([wrong])
    with pytest.raises(UsageError, match="'a' cannot become both 'x' and 'y'"):
        parse_relabel(["a=x", "b,a=y"])


def test_a_label_that_is_not_there_names_the_nearest(selection):
    selection.rows[0]["label"] = "covid"
    with pytest.raises(UsageError, match="expected one of a, b, c, covid, found 'Covid'; did you mean 'covid'"):
        relabel(selection, {"Covid": "x"})


def test_of_duplicates_the_first_stays(selection):
    selection.columns.append("sha256")
    for row, digest in zip(selection.rows, ["S1", "s1", "", "", "s2", "s1"], strict=False):
        row["sha256"] = digest
    selection.rows[1]["label"] = "other"
    drop_duplicates(selection)
    assert ids(selection) == [f"im{k:03}" for k in range(60) if k not in (1, 5)]
    assert selection.rejects[1]["reason"] == "--drop-duplicates: same pixels as im000"
    assert selection.warnings == [
        "2 duplicates have another label than the image that is kept, such as 'im001' (other) and 'im000' (a)"
    ]


def test_duplicates_need_the_digests(selection):
    with pytest.raises(InputError, match="--drop-duplicates: expected a column 'sha256'"):
        drop_duplicates(selection)


def test_one_per_patient_whatever_the_order(selection, shuffled):
    selection.rows[0]["patient_id"] = " P:000"
    selection.rows[4]["patient_id"] = selection.rows[6]["patient_id"] = ""
    kept = []
    for order in range(3):
        other = Selection(selection.columns, shuffled(selection.rows, order))
        one_per(other, "patient_id", seed=1)
        kept.append(set(ids(other)))
        assert len(other.rows) == 32
        assert {"im004", "im006"} <= kept[-1]
        assert len(other.rejects) == 28
    assert kept[0] == kept[1] == kept[2]
    one_per(selection, "patient_id", seed=2)
    assert set(ids(selection)) != kept[0]
    with pytest.raises(InputError, match="--one-per: expected a column 'study'"):
        one_per(selection, "study", 0)


def test_one_per_patient_of_all_classes_but_some(selection, shuffled):
    # Every patient has two images, of two classes.
    kept = []
    for order in range(3):
        other = Selection(selection.columns, shuffled(selection.rows, order))
        one_per(other, "patient_id", 1, ["a"])
        kept.append(set(ids(other)))
    assert kept[0] == kept[1] == kept[2]
    left = [row for row in selection.rows if row["image_id"] in kept[0]]
    assert Counter(row["label"] for row in left)["a"] == 20
    others = [row["patient_id"] for row in left if row["label"] != "a"]
    assert len(others) == len(set(others))
    assert set(others) == {row["patient_id"] for row in selection.rows if row["label"] != "a"}
    with pytest.raises(UsageError, match="--one-per-except: expected one of a, b, c, found 'aa'; did you mean 'a'"):
        one_per(selection, "patient_id", 0, ["aa"])


def test_of_a_patient_with_two_classes_only_the_images_of_the_other_are_thinned():
    columns = ["image_id", "path", "label", "patient_id"]
    cells = [("1", "covid"), ("2", "normal"), ("3", "covid"), ("4", "normal"), ("5", "")]
    rows = [{"image_id": name, "path": name, "label": label, "patient_id": "p"} for name, label in cells]
    found = Selection(columns, rows)
    one_per(found, "patient_id", 0, ["covid"])
    assert [row["label"] for row in found.rows].count("covid") == 2
    assert len(found.rows) == 3
    assert {reject["reason"] for reject in found.rejects} == {"--one-per patient_id: another image of p"}
    found = Selection(columns, rows)
    one_per(found, "patient_id", 0, ["covid", "normal"])
    assert len(found.rows) == 5


def test_samples_hang_on_the_seed_alone_and_lie_in_one_another(selection, shuffled):
    def draw(seed, order, **how):
        other = Selection(selection.columns, shuffled(selection.rows, order))
        sample(other, seed, **how)
        return set(ids(other)), other

    for how, sizes in (({"per_class": 7}, {7}), ({"fraction": 0.33}, {7})):
        first, drawn = draw(0, 0, **how)
        assert set(Counter(row["label"] for row in drawn.rows).values()) == sizes
        assert draw(0, 5, **how)[0] == first
        assert draw(1, 0, **how)[0] != first
    assert draw(0, 0, per_class=3)[0] < draw(0, 0, per_class=7)[0]
    assert draw(0, 0, fraction=1.0)[0] == set(ids(selection))


def test_samples_keep_the_order_and_tell_what_was_not_drawn(selection):
    sample(selection, 0, per_class=7)
    assert ids(selection) == sorted(ids(selection))
    assert len(selection.rejects) == 60 - 21
    assert {row["reason"] for row in selection.rejects} == {"--per-class 7: not drawn"}


def test_small_and_unlabelled_classes(selection):
    selection.rows = [*selection.rows[:5], {**selection.rows[5], "label": ""}]
    everything = [dict(row) for row in selection.rows]
    sample(selection, 0, per_class=2)
    assert Counter(row["label"] for row in selection.rows) == {"a": 2, "b": 2, "c": 1}
    assert selection.warnings == ["--per-class 2: there are only 1 of c"]
    assert {"path": "/nowhere/im005.png", "reason": "--per-class 2: no label"} in selection.rejects
    again = Selection(selection.columns, everything)
    sample(again, 0, fraction=0.01)
    assert Counter(row["label"] for row in again.rows) == {"a": 1, "b": 1, "c": 1, "": 1}


def test_draws_are_fair(selection):
    drawn = Counter()
    for seed in range(300):
        other = Selection(selection.columns, list(selection.rows))
        sample(other, seed, per_class=10)
        drawn.update(ids(other))
    # Each of 20 images of a class is among 10 with probability 1/2: 150 of 300, standard deviation 8.7.
    assert min(drawn.values()) > 115
    assert max(drawn.values()) < 185


def test_rows_with_a_value_are_excluded_whatever_its_case():
    selection = chosen_from([("a", "Mild"), ("b", "severe"), ("c", ""), ("d", "mild ")])
    exclude(selection, "severity = MILD")
    assert [row["image_id"] for row in selection.rows] == ["b", "c"]
    assert [reject["reason"] for reject in selection.rejects] == ["--exclude: severity = MILD"] * 2


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("severity=milde", "--exclude severity: .*'milde'.*did you mean Mild|mild"),
        ("severity", "expected COLUMN=VALUE"),
        ("severe=mild", "expected a column 'severe'"),
    ],
)
def test_what_excludes_nothing_is_refused(text, told):
    with pytest.raises(CxrtoolError, match=told):
        exclude(chosen_from([("a", "mild"), ("b", "severe")]), text)


def chosen_from(rows):
    return Selection(
        ["image_id", "path", "severity"],
        [{"image_id": name, "path": f"{name}.png", "severity": severity} for name, severity in rows],
    )
