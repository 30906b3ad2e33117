import json

import pytest

from cxrtool.commands.doctor import FAIL, OK, WARN, Finding


@pytest.fixture
def findings(monkeypatch):
    """What the doctor is made to find."""
    found = [Finding("python", OK, "3.12"), Finding("memory", WARN, "2 GiB", "use --workers 1")]
    monkeypatch.setattr("cxrtool.commands.doctor.doctor", lambda options, settings: found)
    return found


def test_a_line_each_and_advice_below(cxr, findings):
    outcome = cxr("doctor")
    assert outcome.out == "ok    python  3.12\nwarn  memory  2 GiB\n              use --workers 1\n"
    assert (outcome.code, outcome.err) == (0, "0 fail, 1 warn\n")


def test_a_failure_is_exit_code_one(cxr, findings):
    findings.append(Finding("torch pair", FAIL, "broken", "install both in one command"))
    assert cxr("doctor").code == 1


def test_json_for_programs(cxr, findings):
    assert json.loads(cxr("doctor", "--format", "json").out)[1] == {
        "what": "memory",
        "state": "warn",
        "found": "2 GiB",
        "advice": "use --workers 1",
    }


def test_all_is_well(cxr, findings):
    del findings[1]
    assert cxr("doctor").err == "no problems found\n"
