import csv
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cxrtool.data.tables import manifest
from cxrtool.data.tables.manifest import (
    TEXTS,
    Manifest,
    Table,
    dump_table,
    order_columns,
    read_header,
    read_manifest,
    read_table,
    relative_columns,
    relative_rows,
    write_manifest,
    write_table,
)
from cxrtool.data.tables.views import Columns
from cxrtool.errors import InputError

CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)


@given(st.lists(st.tuples(st.text("abc0 ", min_size=1).filter(str.strip), CELLS, CELLS), max_size=5))
def test_every_text_survives_a_round_trip(tmp_path_factory, triples):
    path = tmp_path_factory.mktemp("round") / "t.csv"
    rows = [{"image_id": a, "label": b, "note": c} for a, b, c in triples]
    write_table(path, ["image_id", "label", "note"], rows)
    assert read_table(path).rows == rows


ODD = st.sampled_from(
    [
        "",
        "001",
        "None",
        "NaN",
        "nan",
        "NA",
        "null",
        "1e5",
        "1.0",
        "TRUE",
        "=1+1",
        " padded ",
        "\u00a0",
        "a,b",
        "a;b",
        "a\tb",
        "two\nlines",
        "two\r\nlines",
        "one\rother",
        "é",
        "œdème",
        "胸",
        "\ufeff",
        "'",
        '"',
        'the "left" one',
    ]
)
NAMES = st.lists(st.from_regex(r"[\w=#%é胸][\w .()/-]{0,8}[\w.)]", fullmatch=True), max_size=3)


@st.composite
def foreign_tables(draw):
    """A table, and the bytes in which some other program may have written it."""
    columns = draw(st.permutations(list(dict.fromkeys(["image_id", "path", "label", *draw(NAMES)]))))
    lines = draw(st.lists(st.lists(ODD | CELLS, min_size=len(columns), max_size=len(columns)), max_size=4))
    rows = [dict(zip(columns, line, strict=True)) | {"image_id": f"00{k}"} for k, line in enumerate(lines)]
    # A writer that quotes no more than it must leaves a line break alone that is not its own.
    broken = any(end in cell for line in lines for cell in line for end in "\r\n")
    text = io.StringIO(newline="")
    writer = csv.DictWriter(
        text,
        columns,
        delimiter=draw(st.sampled_from(",;\t")),
        lineterminator=draw(st.sampled_from(["\n", "\r\n"])),
        quoting=csv.QUOTE_ALL if broken else draw(st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL])),
    )
    writer.writeheader()
    writer.writerows(rows)
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"]))
    try:
        data = text.getvalue().encode(encoding)
        # What is UTF-8 as well is read as such.
        assume(encoding != "latin-1" or data.decode("utf-8") == text.getvalue())
    except UnicodeEncodeError:
        assume(False)
    except UnicodeDecodeError:
        pass
    return columns, rows, data


@given(foreign_tables())
def test_every_oddity_is_the_same_text_in_rows_in_a_frame_and_on_disk(tmp_path_factory, foreign):
    columns, rows, data = foreign
    folder = tmp_path_factory.mktemp("odd")
    (folder / "foreign.csv").write_bytes(data)
    table = read_table(folder / "foreign.csv")
    assert (table.columns, table.rows) == (columns, rows)
    assert list(table.frame.columns) == columns
    assert table.frame.to_dict("records") == rows
    assert all(type(cell) is str for line in table.frame.to_numpy() for cell in line)
    again = Table.of_frame(table.frame, table.origin)
    assert (again.columns, again.rows, again.name, len(again)) == (columns, rows, table.name, len(rows))
    write_table(folder / "own.csv", again.columns, again.rows)
    assert (folder / "own.csv").read_bytes() == dump_table(columns, rows).encode()
    assert read_table(folder / "own.csv").rows == rows


def test_a_table_is_read_without_pandas(tiny):
    code = (
        "import sys; from cxrtool.data.tables.manifest import read_manifest;"
        "manifest = read_manifest(sys.argv[1]); manifest.subset(manifest.column('image_id')).classes();"
        "sys.exit('pandas' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, tiny.origin], check=True)


def test_what_looks_like_something_else_stays_text(tmp_path):
    rows = [{"a": cell, "b": "x"} for cell in ("001", "None", "NA", "nan", "1e5", "=cmd", "TRUE", " padded ", "0x1")]
    write_table(tmp_path / "t.csv", ["a", "b"], rows)
    assert read_table(tmp_path / "t.csv").column("a") == [row["a"] for row in rows]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_any_csv_is_read(tmp_path, delimiter, encoding, end):
    lines = [["image_id", "path", "label"], ["1", "a.png", "é"], [], ["2", "b.png", "ü"]]
    (tmp_path / "t.csv").write_bytes(end.join(delimiter.join(line) for line in lines).encode(encoding))
    table = read_table(tmp_path / "t.csv")
    assert table.columns == ["image_id", "path", "label"]
    assert table.column("label") == ["é", "ü"]
    assert table.lines[-1] == 4


def test_short_rows_are_filled_and_long_ones_refused_with_their_line(tmp_path):
    (tmp_path / "t.csv").write_text("a,b,c\n1\n1,2,3,4\n")
    with pytest.raises(InputError, match=r"t\.csv, line 3: expected 3 cells, found 4"):
        read_table(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("a,b,c\n1\n")
    assert read_table(tmp_path / "t.csv").rows == [{"a": "1", "b": "", "c": ""}]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "found an empty file"),
        (b"a,b,a\n", "'a' is listed twice"),
        (b"\x89PNG\r\n\x1a\n\0\0", "found binary data"),
        (b"\xff\xfe\x00", "found binary data"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, content, told):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(InputError, match=told):
        read_table(tmp_path / "t.csv")


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_table(tmp_path / "t.csv")
    with pytest.raises(InputError, match="found a folder"):
        read_table(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="found a device or pipe"):
        read_table(tmp_path / "pipe")
    with pytest.raises(InputError, match="cannot be read: File name too long"):
        read_table("x" * 5000)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(InputError, match="Too many levels"):
        read_table(tmp_path / "loop")


def test_paths_are_absolute_in_memory_and_relative_on_disk(tmp_path):
    (tmp_path / "a").mkdir()
    image = tmp_path / "images" / "x.png"
    write_manifest(tmp_path / "a" / "m.csv", ["image_id", "path", "mask"], [{"image_id": "x", "path": str(image)}])
    assert "../images/x.png" in (tmp_path / "a" / "m.csv").read_text()
    row = read_manifest(tmp_path / "a" / "m.csv").rows[0]
    assert row == {"image_id": "x", "path": str(image), "mask": ""}


def test_from_standard_input_paths_start_in_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"image_id,path\nx,sub/x.png\n")))
    manifest = read_manifest("-")
    assert manifest.rows[0]["path"] == str(tmp_path / "sub" / "x.png")
    assert manifest.place(0) == "standard input, line 2"


def test_closed_standard_input_is_an_error_of_the_users(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(InputError, match="closed"):
        read_table("-")


def test_a_folder_stands_for_its_manifest(tiny):
    assert read_manifest(tiny.origin.parent).rows == tiny.rows


def test_a_folder_without_one_names_the_command(tmp_path):
    with pytest.raises(InputError) as caught:
        read_manifest(tmp_path)
    assert "cxrtool prepare" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("id,path\n1,a\n", "expected a column 'image_id', found the columns: id, path"),
        ("image_id,path\n,a\n", "line 2: the cell 'image_id' is empty"),
        ("image_id,path\n1,\n", "line 2: the cell 'path' is empty"),
        ("image_id,path\n1,a\n2,b\n1,c\n", "line 4: the image_id '1' is on line 2 too"),
    ],
)
def test_a_manifest_that_breaks_its_rules_is_refused(tmp_path, text, told):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(InputError, match=told):
        read_manifest(tmp_path / "m.csv")


def test_root_confines_reading(tmp_path):
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (inside / "link").symlink_to(outside)
    for path in ("../out/a.png", str(outside / "a.png"), "link/a.png"):
        (inside / "m.csv").write_text(f"image_id,path\n1,{path}\n")
        with pytest.raises(InputError, match="outside --root"):
            read_manifest(inside / "m.csv", root=inside)
    (inside / "m.csv").write_text("image_id,path\n1,sub/../a.png\n")
    assert len(read_manifest(inside / "m.csv", root=inside)) == 1


def test_columns_known_first_then_strangers_and_none_lost():
    rows = [{"zebra": "1", "label": "x"}, {"path": "p"}]
    assert order_columns(["zebra", "image_id"], rows) == ["image_id", "path", "label", "zebra"]


def test_classes_and_subset():
    rows = [{"image_id": str(i), "label": label} for i, label in enumerate(["b", "", "a", "b"])]
    manifest = Manifest(["image_id", "label"], rows, lines=[2, 3, 4, 5])
    assert manifest.classes() == ["a", "b"]
    part = manifest.subset(["3", "0", "stranger"])
    assert part.column("image_id") == ["0", "3"]
    assert part.lines == [2, 5]


def test_of_rows_only_the_columns_are_written():
    text = dump_table(["image_id", "path"], [{"image_id": "1", "path": "/a/b.png", "other": "dropped"}, {"path": "c"}])
    assert text.splitlines() == ["image_id,path", "1,/a/b.png", ",c"]


def manifest_of(folder, column, cells):
    rows = [{"image_id": f"im{k}", "path": f"{k}.png", column: cell} for k, cell in enumerate(cells)]
    write_table(folder / "m.csv", list(rows[0]), rows)
    return folder / "m.csv"


@pytest.mark.parametrize("column", TEXTS)
def test_ids_classes_and_groups_are_one_line(tmp_path, column):
    told = f"m.csv, line 4: expected one line of text in '{column}', found a line break"
    with pytest.raises(InputError, match=told):
        read_manifest(manifest_of(tmp_path, column, ["a", "b\nc"]))
    assert len(read_manifest(manifest_of(tmp_path, column, ["a/b", "../c: d"]))) == 2


def test_repeats_and_folds_are_whole_numbers(tmp_path):
    assert len(read_manifest(manifest_of(tmp_path, "fold", ["0", "", "12"]))) == 3
    for wrong in ("../x", "-1", "1.0", "٣", "one"):
        with pytest.raises(InputError, match="line 3: expected a whole number from 0 in 'fold', found '"):
            read_manifest(manifest_of(tmp_path, "fold", ["0", wrong]))


@pytest.mark.parametrize("pair", [("A1", "a1"), ("c\u00f4te", "co\u0302te")])
def test_two_ids_of_one_file_are_told(tmp_path, pair):
    manifest = read_manifest(manifest_of(tmp_path, "image_id", pair))
    with pytest.raises(InputError, match="line 3: expected image_ids that name different files"):
        manifest.check_file_names()


PARTS = st.sampled_from(["a", "b", "..", ".", "", "x y", "ä"])


@given(st.lists(PARTS, max_size=5), st.lists(PARTS, max_size=6))
def test_relative_paths_are_those_of_relpath(folders, parts):
    base, path = "/" + "/".join(folders), "/" + "/".join(parts)
    expected = Path(os.path.relpath(path, base)).as_posix()
    columns = relative_columns(Columns({"path": [path, "", path]}, 3), Path(base))
    assert columns.cells["path"] == [expected, "", expected]
    assert [*relative_rows([{"path": path, "mask": ""}], Path(base))] == [{"path": expected, "mask": ""}]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_are_counted_over_batches_and_any_line_end(tmp_path, end, monkeypatch):
    monkeypatch.setattr(manifest, "_BATCH", 4)
    rows = [f"im{i},c{i % 2}" for i in range(11)]
    rows[5] = f'im5,"c{end}1"'
    (tmp_path / "t.csv").write_bytes(end.join(["image_id,label", *rows, ""]).encode())
    table = read_table(tmp_path / "t.csv")
    assert table.column("image_id") == [f"im{i}" for i in range(11)]
    assert table.column("label")[5] == f"c{end}1"
    assert list(table.lines) == [*range(2, 7), *range(8, 14)]
    with pytest.raises(InputError, match="line 8: expected one line of text in 'label'"):
        table.check_texts()


def test_an_equal_file_is_left_alone(tmp_path):
    target = tmp_path / "t.csv"
    rows = [{"a": str(i)} for i in range(3)]
    assert write_table(target, ["a"], rows, keep=True)
    assert not write_table(target, ["a"], rows, keep=True)
    for other in (rows[:2], [*rows, {"a": "3"}]):
        assert write_table(target, ["a"], other, keep=True)
        assert read_table(target).rows == other


def test_the_header_alone_is_read_with_any_delimiter(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbfimage_id; path\r\na;b\r\n")
    assert read_header(tmp_path / "t.csv") == ["image_id", "path"]
    assert read_header(tmp_path / "t.csv", ",") == ["image_id; path"]
    (tmp_path / "t.csv").write_bytes(b"")
    assert read_header(tmp_path / "t.csv") == []
