from cxrtool.data.tables.predictions import write_predictions


def test_the_page_is_named_on_standard_output(cxr, make_predictions, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_predictions(tmp_path / "p.csv", make_predictions(40))
    call = ("report", "p.csv", "--errors", "0", "--checklist", "tripod-ai", "--workers", "1", "--threads", "1")
    first = cxr(*call, "-o", "page.html")
    assert (first.code, first.out) == (0, "page.html\n"), first.err
    assert "TRIPOD+AI" in (tmp_path / "page.html").read_text()
    again = cxr(*call, "-o", "page.html")
    assert (again.code, again.out, again.err) == (0, "page.html\n", "page.html: up to date, nothing to do\n")


def test_what_comes_through_a_pipe_is_refused(cxr):
    outcome = cxr("report", "-", "-o", "page.html")
    assert outcome.code == 2
    assert "standard input" in outcome.err


def test_without_an_output_it_says_so(cxr, make_predictions, tmp_path):
    write_predictions(tmp_path / "p.csv", make_predictions(40))
    outcome = cxr("report", tmp_path / "p.csv")
    assert outcome.code == 2
    assert "expected -o FILE" in outcome.err
