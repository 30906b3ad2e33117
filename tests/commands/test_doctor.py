import sys

import pytest

from cxrtool.commands import doctor as step
from cxrtool.commands.doctor import FAIL, OK, WARN, DoctorOptions, Finding, doctor


@pytest.fixture
def probes(monkeypatch):
    """Answers of the probing processes, without starting them."""
    answers = {}

    def run(code):
        import subprocess

        stdout, stderr, code_ = next((a for key, a in answers.items() if key in code), ("{}", "", 0))
        return subprocess.CompletedProcess([], code_, stdout, stderr)

    monkeypatch.setattr(step, "_run", run)
    return answers


def found_by(check, settings):
    return list(check(settings))


def test_this_machine_passes(settings):
    findings = {finding.what: finding for finding in doctor(DoctorOptions(), settings)}
    assert findings["python"].state == OK
    assert findings["numpy"].state == OK
    assert findings["torch pair"].state == OK
    assert findings["cache"].state in (OK, WARN)
    assert findings["DICOM RLE"].state == OK
    assert findings["DICOM JPEG 2000"].state == OK
    assert not [finding for finding in findings.values() if "the check itself failed" in finding.found]
    assert all(finding.advice for finding in findings.values() if finding.state == FAIL)


def test_a_check_that_breaks_is_a_finding_not_the_end(settings, monkeypatch):
    def broken(settings):
        raise RuntimeError("no such luck\nmore")
        yield

    monkeypatch.setattr(step, "CHECKS", (broken, step._python))
    findings = doctor(DoctorOptions(), settings)
    assert findings[0] == Finding("broken", WARN, "the check itself failed: RuntimeError: no such luck")
    assert findings[1].what == "python"


def test_a_pair_that_does_not_fit_fails_with_the_remedy(settings, probes):
    probes["import json, pathlib, torch"] = (
        "",
        "Traceback\nRuntimeError: operator torchvision::nms does not exist\n",
        1,
    )
    (finding,) = found_by(step._torch, settings)
    assert finding.state == FAIL
    assert "operator torchvision::nms does not exist" in finding.found
    assert "in one command from the same index" in finding.advice


def test_a_probe_that_was_killed_has_no_last_words(settings, probes):
    probes["import json, pathlib, torch"] = ("", "", -9)
    assert "the process was killed" in found_by(step._torch, settings)[0].found


def test_a_gpu_is_described(settings, probes):
    probes["import json, pathlib, torch"] = (
        'noise\n{"torch": "2.10", "torchvision": "0.25", "gpus": [["Tesla T4", 16000000000, [7, 5]]]}\n',
        "",
        0,
    )
    assert found_by(step._torch, settings)[1].found == "Tesla T4, 14.9 GiB, compute capability 7.5, no bf16"


def test_two_builds_of_opencv_are_warned_of(settings, probes, monkeypatch):
    class Entry:
        def __init__(self, name):
            self.metadata = {"Name": name}

    names = ["numpy", "opencv-python-headless", "opencv-python", None]
    monkeypatch.setattr(step.metadata, "distributions", lambda: map(Entry, names))
    (finding,) = found_by(step._opencv, settings)
    assert finding.state == WARN
    assert "pip uninstall -y opencv-python &&" in finding.advice
    probes["import cv2"] = ("", "ImportError: libGL.so.1: cannot open shared object file\n", 1)
    assert found_by(step._opencv, settings)[1].state == FAIL


def test_old_and_missing_packages_fail(settings, monkeypatch):
    def version(name):
        if name == "timm":
            raise step.metadata.PackageNotFoundError(name)
        return "2.9.1+cpu" if name == "torch" else "99"

    monkeypatch.setattr(step.metadata, "version", version)
    monkeypatch.setattr(step, "_lower_bounds", lambda: {"torch": "2.10", "timm": "1.0.15"})
    findings = {finding.what: finding for finding in found_by(step._packages, settings)}
    assert findings["torch"] == Finding("torch", FAIL, "2.9.1+cpu, older than 2.10", "pip install -U 'torch>=2.10'")
    assert findings["timm"] == Finding("timm", FAIL, "not installed", "pip install 'timm>=1.0.15'")
    assert findings["numpy"].state == OK


def test_bounds_come_from_the_package_itself(monkeypatch):
    assert set(step.PACKAGES) <= step._lower_bounds().keys()
    lines = ["typer<0.29,>=0.27", "torch>=2.10", "pytest>=8.3; extra == 'dev'", "timm", "scikit-learn (>= 1.5)"]
    monkeypatch.setattr(step.metadata, "requires", lambda name: lines)
    assert step._lower_bounds() == {"typer": "0.27", "torch": "2.10", "pytest": "8.3", "scikit-learn": "1.5"}


@pytest.mark.parametrize(
    ("older", "newer"), [("2.9.1", "2.10"), ("1.0.9", "1.0.15"), ("2.10.0rc1", "2.11"), ("4", "4.10"), ("1.0", "1.0.1")]
)
def test_versions_compare_as_numbers(older, newer):
    assert step._numbers(older) < step._numbers(newer)
    assert step._numbers("2.10.0+cu130") == (2, 10, 0)


def test_a_cache_that_cannot_be_written_fails(settings, tmp_path):
    from dataclasses import replace

    findings = found_by(step._folders, replace(settings, cache=tmp_path / "not yet" / "there"))
    assert findings[0].state in (OK, WARN)
    assert not (tmp_path / "not yet").exists()
    (tmp_path / "file").write_text("")
    findings = found_by(step._folders, replace(settings, cache=tmp_path / "file"))
    assert findings[0].state == FAIL
    assert findings[0].advice == "choose another folder with --cache"


def test_a_hanging_probe_is_given_up(monkeypatch):
    monkeypatch.setattr(step, "PROBE_SECONDS", 0.2)
    assert step._run("import time; time.sleep(30)").stderr == "no answer in 0.2 s"
    monkeypatch.setattr(sys, "executable", "/not/there")
    with pytest.raises(Exception, match="cannot start python"):
        step._run("")
