import os
from collections import Counter
from dataclasses import replace

import pytest

from cxrtool.commands.select import SelectOptions, select
from cxrtool.data.tables.manifest import read_manifest, read_table, write_manifest
from cxrtool.errors import InputError, OutputError, UsageError
from cxrtool.flow.folder import read_run_file


@pytest.fixture
def options(tiny):
    return SelectOptions((tiny.origin,))


def test_without_out_the_selection_is_returned_with_absolute_paths(options, settings, tiny):
    selection = select(replace(options, where="label = 'covid'"), settings)
    assert [row["path"] for row in selection.rows] == [r["path"] for r in tiny.rows if r["label"] == "covid"]


def test_a_csv_holds_paths_that_lead_from_where_it_lies(options, settings, tiny, tmp_path):
    out = tmp_path / "deep" / "er" / "x.csv"
    select(options, replace(settings, out=out))
    assert "../../tiny/im000.png" in out.read_text()
    assert read_manifest(out).rows == tiny.rows


def test_a_folder_lists_what_was_left_out_and_why(options, settings, tiny, tmp_path, listener):
    out = tmp_path / "chosen"
    wish = replace(options, where="view = 'PA'", per_class="4")
    select(wish, replace(settings, out=out, strict=True))
    assert len(read_manifest(out)) == 8
    rejects = read_table(out / "rejects.csv")
    assert len(rejects) == len(tiny) - 8
    assert {row["reason"] for row in rejects.rows} == {"--where: view = 'PA'", "--per-class 4: not drawn"}
    assert read_run_file(out)["options"]["per_class"] == {"value": "4", "origin": "default"}
    assert listener.warned == []
    assert select(wish, replace(settings, out=out)) is None
    assert "up to date" in listener.said[-1]
    assert select(wish, replace(settings, out=out, seed=5)) is not None


def test_ids_survive_four_chained_commands_byte_for_byte(settings, tmp_path):
    ids = ["001", "1", "None", "NA", "=1+1", "x,y", 'q"q', "é", "1e5", " pad", "-"]
    rows = [{"image_id": i, "path": str(tmp_path / "a.png"), "label": "None"} for i in ids]
    write_manifest(tmp_path / "0.csv", ["image_id", "path", "label"], rows)
    for step in range(4):
        target = tmp_path / str(step) / f"{step + 1}.csv"
        source = tmp_path / "0.csv" if step == 0 else tmp_path / str(step - 1) / f"{step}.csv"
        select(SelectOptions((source,)), replace(settings, out=target))
    assert read_manifest(target).rows == rows


def test_options_work_in_the_order_of_the_page(options, settings):
    # --where sees the labels as they were, and the classes that are drawn from are the new ones.
    wish = replace(options, where="label != 'x'", relabel=("covid=all", "normal=all"), per_class="3")
    assert [row["label"] for row in select(wish, settings).rows] == ["all"] * 3
    with pytest.raises(InputError, match="--where: expected rows for which it holds, found none of 24"):
        select(replace(wish, where="label = 'all'"), settings)


def test_classes_cannot_be_drawn_without_labels(options, settings, tmp_path):
    (tmp_path / "m.csv").write_text("image_id,path\n1,a.png\n")
    with pytest.raises(InputError, match="--per-class: expected images with a label, found none of 1"):
        select(SelectOptions((tmp_path / "m.csv",), per_class="2"), settings)


def test_several_manifests_are_joined(options, settings, tiny, tmp_path):
    for name in ("a", "b"):
        select(replace(options, where=f"source = '{name}'"), replace(settings, out=tmp_path / name))
    both = select(SelectOptions((tmp_path / "a", tmp_path / "b", tiny.origin)), settings)
    assert len(both.rows) == 24


def test_what_excludes_one_another_is_refused(options, settings):
    with pytest.raises(UsageError, match="exclude one another"):
        select(replace(options, per_class="1", fraction=0.5), settings)
    for fraction in (0, -1, 1.5, float("nan")):
        with pytest.raises(UsageError, match="--fraction: expected a share"):
            select(replace(options, fraction=fraction), settings)


def test_an_exception_needs_what_it_is_an_exception_to(options, settings):
    with pytest.raises(UsageError, match="--one-per-except: expected --one-per COLUMN with it"):
        select(replace(options, one_per_except=("covid",)), settings)
    # A recipe gives an empty column where nothing is thinned.
    assert len(select(replace(options, one_per="", one_per_except=("covid",)), settings).rows) == 24
    # The classes are those after --relabel.
    wish = replace(options, relabel=("normal=well",), one_per="patient_id", one_per_except=("well",))
    labels = Counter(row["label"] for row in select(wish, settings).rows)
    assert labels["well"] == 12
    assert labels["covid"] < 12


def test_a_selection_never_replaces_the_folder_that_it_reads(options, settings, tmp_path):
    out = tmp_path / "chosen"
    select(options, replace(settings, out=out))
    with pytest.raises(OutputError, match="expected a folder without the inputs"):
        select(SelectOptions((out,)), replace(settings, out=out))
    assert len(read_manifest(out)) == 24


def test_nothing_to_select_from_is_an_error(settings, tmp_path):
    (tmp_path / "m.csv").write_text("image_id,path\n")
    with pytest.raises(InputError, match="expected images, found none"):
        select(SelectOptions((tmp_path / "m.csv",)), settings)


def test_dry_run_writes_nothing(options, settings, tmp_path, listener):
    for out in (tmp_path / "x.csv", tmp_path / "x"):
        select(options, replace(settings, out=out, dry_run=True))
        assert not out.exists()
        assert "would write" in listener.said[-1]


def test_a_file_that_says_the_same_already_is_left_alone(settings, tiny, tmp_path):
    told = SelectOptions((tmp_path / "tiny" / "manifest.csv",), per_class="4")
    out = tmp_path / "some.csv"
    source = told.manifests[0]
    select(told, replace(settings, out=out))
    os.utime(out, ns=(10**18 + 10**12, 10**18 + 10**12))
    os.utime(source, ns=(10**18, 10**18))
    select(told, replace(settings, out=out))
    assert out.stat().st_mtime_ns == 10**18 + 10**12
    # Older than its source it would be made again and again.
    os.utime(source, ns=(10**18 + 10**13, 10**18 + 10**13))
    select(told, replace(settings, out=out))
    assert out.stat().st_mtime_ns > 10**18 + 10**13
    select(replace(told, per_class="5"), replace(settings, out=out))
    assert len(read_manifest(out)) == 10


def test_as_many_of_each_class_as_the_smallest_has(options, settings):
    wish = replace(options, where="label = 'normal' or image_id < 'im008'", per_class="smallest")
    counts = Counter(row["label"] for row in select(wish, settings).rows)
    assert counts == {"covid": 4, "normal": 4}
    with pytest.raises(UsageError, match="--per-class: expected a number above 0, or smallest, found 'least'"):
        select(replace(options, per_class="least"), settings)
    with pytest.raises(UsageError, match="found '0'"):
        select(replace(options, per_class="0"), settings)
