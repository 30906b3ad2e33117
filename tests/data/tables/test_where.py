import pytest

from cxrtool.data.tables.selection import Selection
from cxrtool.data.tables.where import choose_where
from cxrtool.errors import UsageError

COLUMNS = ["image_id", "path", "label", "age", "score", "code", "odd name", 'quo"te']
ROWS = [
    ("001", "a.png", "covid", "9", "1.5", "007", "x", "1"),
    ("1", "b.png", "normal", "10", "", "7", "y", ""),
    ("002", "c.png", "covid", "", "2", "010", "", ""),
    ("003", "d.png", "it's", "100", "-3e1", "8", "x", ""),
]


def chosen(expression, rows=ROWS):
    selection = Selection(list(COLUMNS), [dict(zip(COLUMNS, row, strict=True)) for row in rows])
    choose_where(selection, expression)
    return [row["path"][0] for row in selection.rows], selection


@pytest.mark.parametrize(
    ("expression", "kept"),
    [
        ("label = 'covid'", "ac"),
        ("LABEL = 'covid'", "ac"),
        ("label != 'covid'", "bd"),
        ("label in ('covid', 'it''s')", "acd"),
        ("label like 'CO%'", "ac"),
        # Numbers compare as numbers: as text 9 is greater than 100.
        ("age > 9", "bd"),
        ("age >= 9.0", "abd"),
        ("age = '10'", "b"),
        ("age between 5 and 10", "ab"),
        ("score < 0", "d"),
        ("age > (select avg(age) from manifest)", "d"),
        # An empty cell of a column of numbers is NULL, neither small nor great.
        ("age is null", "c"),
        ("age != ''", "abd"),
        ("not age < 50", "d"),
        # Ids and padded numbers stay text.
        ("image_id = '001'", "a"),
        ("image_id = 1", "b"),
        ("code = '7'", "b"),
        ("code = '007'", "a"),
        ("\"odd name\" = 'x'", "ad"),
        ("[odd name] = 'x' and \"age\" > 50", "d"),
        ('"quo""te" = 1', "a"),
        ("label = 'covid' -- and age > 100", "ac"),
        ("label = 'say \"covid\"' or age = 9", "a"),
        ("1", "abcd"),
    ],
)
def test_expressions(expression, kept):
    assert "".join(chosen(expression)[0]) == kept


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("labl = 'covid'", "no such column: labl; did you mean 'label'?"),
        ("\"labl\" = 'covid'", 'no such column: "labl"; write text in single quotes'),
        ('label = "covid"', 'no such column: "covid"; write text in single quotes'),
        ("label = 'covid", "unrecognized token"),
        ("label =", "syntax error"),
        ("1); drop table manifest; select (1", "one statement at a time"),
        ("1) union select rowid from sqlite_master where (1", "prohibited|not authorized"),
        ("exists (select 1 from sqlite_master)", "prohibited|not authorized"),
        ("random() > 0", "not authorized to use function: random"),
        ("load_extension('x') = 1", "not authorized|no such function"),
        ("(with recursive t(n) as (select 1 union all select n + 1 from t) select count(*) from t)", "not authorized"),
        ("length(zeroblob(900000000)) > 1", "too big"),
    ],
)
def test_what_is_no_expression_over_the_columns_is_refused(expression, told):
    with pytest.raises(UsageError, match=told) as caught:
        chosen(expression)
    assert "the columns: image_id, path, label, age" in caught.value.hint
    assert "\n" not in caught.value.message


def test_what_is_left_out_has_the_expression_for_a_reason():
    _, selection = chosen("age = 9")
    assert selection.rejects[0] == {"path": "b.png", "reason": "--where: age = 9"}
    assert len(selection.rejects) == 3


def test_text_among_numbers_is_warned_of_where_it_is_read():
    rows = [*ROWS, ("004", "e.png", "covid", "adult", "1", "1", "", "")]
    kept, selection = chosen("age > 9", rows)
    assert kept == ["b", "d", "e"]
    assert selection.warnings == [
        "--where: in 'age' 1 cell is not a number, such as 'adult'; SQLite treats text as greater than any number"
    ]
    assert chosen("score > 0", rows)[1].warnings == []


def test_columns_that_differ_in_case_alone_are_no_error():
    selection = Selection(["a", "A"], [{"a": "1", "A": "2", "path": "p"}])
    choose_where(selection, "a = 1")
    assert len(selection.rows) == 1


@pytest.mark.parametrize(
    ("cells", "kept", "warned"),
    [
        (["55,0", "65,5", "61", ""], "bc", False),
        (["55,0", "65,5", "9,25", "nan"], "b", False),
        (["1,234", "61", "", "70"], "bd", True),
        (["55,0", "65,5", "old", ""], "bc", True),
    ],
)
def test_a_decimal_comma_is_a_number(cells, kept, warned):
    rows = [(*row[:3], cell, *row[4:]) for row, cell in zip(ROWS, cells, strict=True)]
    found, selection = chosen("age > 60", rows)
    assert "".join(found) == kept
    assert bool(selection.warnings) == warned


def test_a_word_of_sql_in_the_place_of_a_column_is_told():
    with pytest.raises(UsageError, match=r"'Alter' is no column of this table; .* --where '\"the column\" > 40'"):
        chosen("Alter > 40")
    rows = [dict(zip(["image_id", "path", "Alter"], ("a", "a.png", "50"), strict=True))]
    selection = Selection(["image_id", "path", "Alter"], rows)
    with pytest.raises(UsageError, match=r"'Alter' is also a word of SQL.* --where '\"Alter\" > 40'"):
        choose_where(selection, "Alter > 40")
    choose_where(selection, '"Alter" > 40')
    assert len(selection) == 1
