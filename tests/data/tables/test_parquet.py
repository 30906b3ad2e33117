"""Parquet in and out: the same table as the CSV, whatever is in its cells."""

import datetime
import io
import sys
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cxrtool.data.splitting.splits import read_splits, splits_content, splits_digest
from cxrtool.data.tables import parquet
from cxrtool.data.tables.manifest import (
    COLUMNS,
    PATH_COLUMNS,
    RUN_NUMBERS,
    TEXTS,
    is_file_of_table,
    read_header,
    read_manifest,
    read_table,
    write_manifest,
    write_table,
)
from cxrtool.data.tables.parquet_pages import rows_and_size
from cxrtool.errors import InputError
from cxrtool.flow.folder import Inputs

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

line = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1, max_size=12)
word = line.filter(str.strip)
cell = st.one_of(
    st.sampled_from(["", "001", "None", "nan", "NULL", "1.0", "a,b;c\t", '"', "=1+1", "é\u0301", " x ", "a\r\nb"]),
    st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=12),
)
name = line.map(str.strip).filter(lambda text: text and text not in COLUMNS)


@st.composite
def manifests(draw):
    ids = draw(st.lists(word, min_size=1, max_size=6, unique=True))
    others = [column for column in COLUMNS if column not in ("image_id", "path")]
    columns = draw(st.lists(st.one_of(st.sampled_from(others), name), max_size=5, unique=True))
    rows = []
    for identity in ids:
        row = {"image_id": identity, "path": draw(st.sampled_from(["a/b.png", "../é.dcm", "/x/y z.png", "..x"]))}
        for column in columns:
            kinds = {**dict.fromkeys(TEXTS, word), **dict.fromkeys(RUN_NUMBERS, st.integers(0, 30).map(str))}
            kinds |= dict.fromkeys(PATH_COLUMNS, st.sampled_from(["", "m/1.png"]))
            row[column] = draw(st.one_of(st.just(""), kinds.get(column, cell)))
        rows.append(row)
    return ["image_id", "path", *columns], rows


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(manifests())
def test_csv_and_parquet_of_a_manifest_are_one_table(tmp_path, made):
    columns, rows = made
    for suffix in ("csv", "parquet"):
        write_table(tmp_path / f"m.{suffix}", columns, rows)
    one, other = (read_manifest(tmp_path / f"m.{suffix}") for suffix in ("csv", "parquet"))
    assert one.columns == other.columns
    assert one.rows == other.rows
    assert Inputs.of(one).digest == Inputs.of(other).digest
    for suffix, table in (("csv", one), ("parquet", other)):
        write_manifest(tmp_path / f"again.{suffix}.csv", columns, table.records)
    assert (tmp_path / "again.csv.csv").read_bytes() == (tmp_path / "again.parquet.csv").read_bytes()


TYPES = {
    "integer": pd.Series([1, 2, -3], dtype="int64"),
    "nullable": pd.Series([1, None, 3], dtype="Int16"),
    "float": pd.Series([65.0, np.nan, 0.1]),
    "float32": pd.Series([0.1, 1e10, np.nan], dtype="float32"),
    "boolean": pd.Series([True, False, True]),
    "date": pd.Series(pd.to_datetime(["2020-03-31", None, "1999-01-01"])),
    "moment": pd.Series(pd.to_datetime(["2020-03-31 12:30", None, "1999-01-01 00:00"])),
    "zone": pd.Series(pd.to_datetime(["2020-03-31 12:30", None, "2021-07-01 00:00"]).tz_localize("Europe/Berlin")),
    "category": pd.Series(["x", None, "x"], dtype="category"),
    "text": pd.Series(["001", None, "None"]),
    "nothing": pd.Series([None, None, None], dtype=object),
    "days": pd.Series([datetime.date(2020, 3, 31), None, datetime.date(1, 1, 1)], dtype=object),
    "decimal": pd.Series([Decimal("1.50"), None, Decimal("-0.05")], dtype=object),
}


def test_every_type_is_the_text_that_pandas_writes_into_a_csv(tmp_path):
    frame = pd.DataFrame({"image_id": ["a", "b", "c"], **TYPES})
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_parquet(tmp_path / "t.parquet", index=False)
    one, other = read_table(tmp_path / "t.csv"), read_table(tmp_path / "t.parquet")
    assert one.columns == other.columns
    for column in one.columns:
        assert other.column(column) == one.column(column), column


def test_an_index_without_a_name_is_no_column_and_large_texts_are_texts(tmp_path):
    pd.DataFrame({"image_id": ["a", "b"]}, index=["x", "y"]).to_parquet(tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet").columns == ["image_id"]
    table = pa.table({"a": pa.array(["1", None], pa.large_string()), "b": pa.nulls(2), "": ["x", "y"]})
    pq.write_table(table, tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet").rows == [{"a": "1", "b": ""}]
    assert read_table(tmp_path / "t.parquet").lines[0] == 1


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"a": [[1], [2]]}, "expected text, numbers, dates or booleans in 'a', found list"),
        ({"a": [{"b": 1}, {"b": 2}]}, "in 'a', found struct"),
        ({"a": [b"x", b"y"]}, "in 'a', found binary"),
        ({"a": ["x", "y\0"]}, "t.parquet, row 2: expected text in 'a', found a zero byte"),
        ({"image_id": ["x", "y\n"], "path": ["1", "2"]}, "t.parquet, row 2: expected one line of text in 'image_id'"),
        ({"image_id": ["x", "x"], "path": ["1", "2"]}, "row 2: the image_id 'x' is on row 1 too"),
        ({"image_id": ["x", "y"], "path": ["1", "2"], "fold": ["0", "../x"]}, "row 2: expected a whole number from 0"),
        ({" a": ["1"], "a ": ["2"]}, "the column 'a' is listed twice in the header"),
    ],
)
def test_what_is_refused_is_named_with_file_row_and_column(tmp_path, columns, told):
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    with pytest.raises(InputError) as caught:
        read_manifest(tmp_path / "t.parquet")
    assert told in caught.value.message
    assert str(tmp_path / "t.parquet") in caught.value.message


def test_a_column_listed_twice_and_a_file_that_is_none_are_refused(tmp_path):
    pq.write_table(pa.Table.from_arrays([pa.array(["1"]), pa.array(["2"])], names=["a", "a"]), tmp_path / "t.parquet")
    with pytest.raises(InputError, match="'a' is listed twice"):
        read_table(tmp_path / "t.parquet")
    for content in (b"", b"image_id,path\n", b"PAR1PAR1", b"PAR1" + b"\xff" * 60 + b"PAR1"):
        (tmp_path / "t.parquet").write_bytes(content)
        with pytest.raises(InputError, match=r"t\.parquet: expected a Parquet table, cannot read it: [^\n]+$"):
            read_table(tmp_path / "t.parquet")


def test_a_small_file_that_claims_a_billion_cells_is_refused_before_it_is_read(tmp_path, monkeypatch):
    with pq.ParquetWriter(tmp_path / "t.parquet", pa.schema([("a", pa.string())]), compression="zstd") as writer:
        for _ in range(20):
            writer.write_table(pa.table({"a": pa.repeat(pa.scalar("x"), 1 << 20)}))
    assert (tmp_path / "t.parquet").stat().st_size < 100_000
    with pytest.raises(InputError, match=r"too large for its file of .* bytes: 20,971,520 cells"):
        read_table(tmp_path / "t.parquet")
    pq.write_table(pa.table({"a": ["x" * 1_000_000]}), tmp_path / "t.parquet", compression="zstd")
    monkeypatch.setattr(parquet, "LARGEST", 1 << 18)
    with pytest.raises(InputError, match=r"too large for its file of .* 1,000,\d+ bytes"):
        read_table(tmp_path / "t.parquet")


def test_pages_that_grow_without_limit_are_refused(tmp_path):
    texts = [f"{'x' * 50}{i}" for i in range(100)]
    pq.write_table(
        pa.table({"a": texts}), tmp_path / "t.parquet", use_dictionary=False, column_encoding={"a": "DELTA_BYTE_ARRAY"}
    )
    with pytest.raises(InputError, match=r"cannot read it: texts that are encoded as differences \(DELTA_BYTE_ARRAY\)"):
        read_table(tmp_path / "t.parquet")


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "snappy", "zstd", "gzip"])
def test_the_size_of_pages_is_that_of_their_headers(tmp_path, version, compression):
    table = pa.table({"a": [f"im{i}" for i in range(5000)], "b": ["x", None] * 2500, "c": np.arange(5000) / 3})
    options = {"data_page_version": version, "compression": compression, "data_page_size": 4096}
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=1500, write_page_checksum=True, **options)
    data, metadata = (tmp_path / "t.parquet").read_bytes(), pq.read_metadata(tmp_path / "t.parquet")
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    parts = [part for group in groups for part in map(group.column, range(3))]
    # The file's own figure has the headers, too.
    whole = sum(part.total_uncompressed_size for part in parts)
    rows, size = rows_and_size(data)
    assert rows == 5000
    assert whole - sum(part.total_compressed_size for part in parts) < size <= whole
    if compression == "none":
        assert whole - 100 * len(parts) * 20 < size
    assert read_table(tmp_path / "t.parquet").column("a") == [f"im{i}" for i in range(5000)]


def test_a_page_that_is_larger_than_the_file_says_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "LARGEST", 1 << 18)
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": ["x" * 1_000_000]}), path, compression="zstd", use_dictionary=False)
    part = pq.read_metadata(path).row_group(0).column(0)
    claimed = _zigzag(part.total_uncompressed_size)
    data = path.read_bytes()
    assert data.count(claimed, part.data_page_offset + part.total_compressed_size) >= 1
    start = part.data_page_offset + part.total_compressed_size
    path.write_bytes(data[:start] + data[start:].replace(claimed, _zigzag(70_000)))
    assert pq.read_metadata(path).row_group(0).column(0).total_uncompressed_size == 70_000
    with pytest.raises(InputError, match="too large for its file"):
        read_table(path)


def _zigzag(number: int) -> bytes:
    """A number of three bytes in Thrift's compact protocol."""
    return bytes([number << 1 & 0x7F | 0x80, number >> 6 & 0x7F | 0x80, number >> 13 & 0x7F])


def test_standard_input_may_be_parquet(tmp_path, monkeypatch):
    write_table(tmp_path / "t.parquet", ["image_id"], [{"image_id": "007"}])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((tmp_path / "t.parquet").read_bytes())))
    assert read_table("-").rows == [{"image_id": "007"}]


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    write_table(tmp_path / "t.parquet", ["a"], [{"a": "1"}])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"t\.parquet: a Parquet file is read with pyarrow, which is not") as caught:
        read_table(tmp_path / "t.parquet")
    assert "pip install 'cxrtool[parquet]'" in caught.value.hint
    with pytest.raises(InputError, match="a Parquet file is written with pyarrow"):
        write_table(tmp_path / "u.parquet", ["a"], [{"a": "1"}])
    assert not (tmp_path / "u.parquet").exists()


def test_equal_parquet_is_left_alone_and_a_header_is_read_without_the_rows(tmp_path):
    target = tmp_path / "t.parquet"
    rows = [{"b": "1", "a": "x"}, {"a": ""}]
    assert write_table(target, ["a", "b"], rows)
    assert not write_table(target, ["a", "b"], rows, keep=True)
    assert write_table(target, ["a", "b"], rows[:1], keep=True)
    assert read_header(target) == ["a", "b"]
    target.write_bytes(b"PAR1")
    assert read_header(target) == []
    assert is_file_of_table(target)
    assert not is_file_of_table(tmp_path / "t.xlsx")


def test_splits_as_parquet_are_the_same_splits(tmp_path):
    rows = [{"image_id": "a", "subset": "train", "made_by": "split"}, {"image_id": "b", "subset": "test"}]
    for records in (("made_by",), ()):
        columns = ["image_id", "subset", *records]
        one, other = tmp_path / "s.csv", tmp_path / "s.parquet"
        for path in (one, other):
            write_table(path, columns, rows)
        assert read_splits(one).runs == read_splits(other).runs
        assert splits_digest(one) == splits_digest(other)
        assert splits_content(one) == splits_content(other) == one.read_bytes()
