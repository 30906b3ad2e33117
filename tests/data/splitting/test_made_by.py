import pytest

from cxrtool.data.splitting.made_by import as_typed, command_line, parse


def test_a_line_is_read_as_it_was_written():
    values = {"leave_out": "first 'source'", "validation": 0.1, "stratify": "label,severity", "keep": None, "seed": 0}
    line = command_line(values)
    assert line.startswith("split --leave-out ")
    assert parse(line) == [{name: str(value) for name, value in values.items() if value is not None}]


def test_a_pipe_has_the_options_of_each_command():
    line = "split --holdout 60/20/20 --seed 1 | split --within - --equal label --keep test --seed 2"
    assert [made["seed"] for made in parse(line)] == ["1", "2"]
    assert as_typed(line).count("cxrtool split ") == 2


@pytest.mark.parametrize("line", ["by hand", "split --folds", "split folds 5", "split --folds 5 |", "split 'x", ""])
def test_what_is_no_command_line_is_refused(line):
    with pytest.raises(ValueError, match=r"expected options of split|No closing quotation"):
        parse(line)
