import io


def test_rows_on_standard_output_and_the_table_on_standard_error(cxr, tiny):
    outcome = cxr("split", tiny.origin, "--holdout", "50/25/25")
    assert outcome.out.splitlines()[0] == "image_id,repeat,fold,subset,made_by,row_digest"
    assert len(outcome.out.splitlines()) == 25
    header, rule, *rows = outcome.err.splitlines()
    assert header == "fold  subset      images  patients  covid  normal"
    assert set(rule) == {"-", " "}
    assert [row.split()[:4] for row in rows] == [
        ["r0f0", "train", "12", "6"],
        ["r0f0", "validation", "6", "3"],
        ["r0f0", "test", "6", "3"],
    ]


def test_a_file_keeps_standard_output_free(cxr, tiny, tmp_path):
    printed = cxr("split", tiny.origin, "--folds", "3").out
    outcome = cxr("split", tiny.origin, "--folds", "3", "-o", tmp_path / "s.csv", "--quiet")
    assert (outcome.out, outcome.err) == ("", "")
    assert (tmp_path / "s.csv").read_text() == printed


def test_commands_are_chained_through_pipes(cxr, tiny, monkeypatch):
    chosen = cxr("select", tiny.origin, "--where", "source = 'a'", "-q").out
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(chosen.encode())))
    outcome = cxr("split", "-", "--folds", "3", "-q")
    assert outcome.code == 0
    assert len(outcome.out.splitlines()) == 1 + 3 * 12
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(outcome.out.encode())))
    thinned = cxr("split", tiny.origin, "--within", "-", "--equal", "label", "-q")
    assert thinned.code == 0
    assert "--seed 0 | split --within - --equal label --seed 0" in thinned.out.splitlines()[1]


def test_a_leak_has_its_own_exit_code(cxr, tiny):
    text = tiny.origin.read_text().splitlines()
    marked = [text[0] + ",part"] + [f"{line},{('train', 'test')[k % 2]}" for k, line in enumerate(text[1:])]
    tiny.origin.write_text("\n".join(marked) + "\n")
    outcome = cxr("split", tiny.origin, "--from-column", "part")
    assert outcome.code == 4
    assert "12 patients are in more than one subset" in outcome.err
