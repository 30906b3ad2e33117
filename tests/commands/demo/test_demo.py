"""The demonstration, from the drawn radiographs to the page, on few images."""

import contextlib
import io
import json
import re
import shlex
import sys

import cv2
import numpy as np
import pytest

from cxrtool.cli.main import run
from cxrtool.commands import demo
from cxrtool.commands.demo import Sizes
from cxrtool.commands.demo.story import NO_CURE, Story

SMALL = Sizes(first=60, second=16, several=24, epochs=2, longer=2)


def call(out):
    """Run the demonstration; return the exit code, standard output and standard error."""
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.redirect_stderr(io.StringIO()) as said:
        code = run(["demo", "-o", str(out)])
    return code, printed.getvalue(), said.getvalue()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a small demonstration, and what it printed."""
    out = tmp_path_factory.mktemp("demo") / "a folder"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "SIZES", SMALL)
        patch.setattr(sys, "argv", ["cxrtool", "demo"])
        yield out, call(out)


def test_it_ends_in_twelve_lines_after_a_line_a_step(made):
    out, (code, printed, said) = made
    assert code == 0
    steps = said.splitlines()
    assert [line[:7] for line in steps] == [f"[{number:2d}/{len(demo.STEPS)}]" for number in range(1, len(steps) + 1)]
    assert len(steps) == len(demo.STEPS)
    end = printed.strip().splitlines()
    assert len(end) <= 12
    assert f"All of it on one page: {out / demo.PAGE}" in printed
    assert [line.strip() for line in end[-3:]] == list(demo.NEXT)


def test_every_figure_is_what_the_commands_wrote(made):
    out, (_, printed, _) = made
    for folder, line in (("tested-a", "new patients"), ("tested-b", "the same network"), ("remedy-b", "cropped")):
        found = json.loads((out / folder / "metrics.json").read_text())["overall"]["accuracy"]
        shown = next(text for text in printed.splitlines() if line in text)
        assert f"accuracy {found['value']:.2f} ({found['low']:.2f}-{found['high']:.2f})" in shown
    audit = json.loads((out / "audit" / "audit.json").read_text())
    findings = [finding for part in audit["parts"].values() for finding in part["findings"]]
    sentence = next(line for line in printed.splitlines() if line.startswith("Audit: ")).removeprefix("Audit: ")
    assert any(finding["text"].startswith(sentence.rstrip(".")) for finding in findings)


def test_the_page_tells_all_of_it_without_another_file(made):
    out, _ = made
    page = (out / demo.PAGE).read_text(encoding="utf-8")
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    assert NO_CURE in text
    assert all(f"cxrtool {step.line.split()[0]} " in text for step in demo.STEPS)
    assert page.count("data:image/") >= 5
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", page)


def test_its_commands_are_recorded_as_they_can_be_typed(made):
    out, _ = made
    typed = json.loads((out / "network-lungs" / "run.json").read_text())["argv"]
    assert typed[:3] == ["cxrtool", "train", str(out / "lungs")]


def test_again_it_computes_nothing(made, monkeypatch):
    out, (_, first, _) = made
    monkeypatch.setattr(demo, "SIZES", SMALL)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    code, again, _ = call(out)
    assert code == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")} == before
    assert again.splitlines()[:6] == first.splitlines()[:6]


def test_a_step_that_fails_ends_it(cxr, tmp_path, monkeypatch):
    steps = (*demo.STEPS[:1], demo.Step("fail", f"prepare {shlex.quote(str(tmp_path / 'none'))} -o {{out}}/x"))
    monkeypatch.setattr(demo, "STEPS", steps)
    monkeypatch.setattr(demo, "SIZES", Sizes(first=8))
    outcome = cxr("demo", "-o", tmp_path / "demo")
    assert outcome.code == 1
    assert "none" in outcome.err
    assert outcome.err.splitlines()[-1].startswith("[ 2/2] fail: failed")
    assert not (tmp_path / "demo" / demo.PAGE).exists()


def test_without_an_alarm_it_says_what_the_audit_says(tmp_path):
    """The sentence is the audit's own, whatever it found."""
    part = {"title": "Probes", "content": {}, "sheets": [], "pictures": []}
    part["findings"] = [{"level": "clear", "text": "The border alone is at chance (balanced accuracy 0.50)."}]
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit" / "audit.json").write_text(json.dumps({"schema": 1, "parts": {"probes": part}}))
    assert Story(tmp_path).audit == "The border alone is at chance"


def test_the_folder_of_another_step_is_refused(cxr, tmp_path):
    """Nothing in it is touched."""
    (tmp_path / "data" / "a").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "data" / "a" / "x.png"), np.arange(64 * 64, dtype=np.uint8).reshape(64, 64))
    assert cxr("prepare", tmp_path / "data", "-o", tmp_path / "prepared").code == 0
    before = {path: path.read_bytes() for path in (tmp_path / "prepared").rglob("*") if path.is_file()}
    refused = cxr("demo", "-o", tmp_path / "prepared")
    assert refused.code == 2
    assert "expected a new folder" in refused.err
    assert {path: path.read_bytes() for path in (tmp_path / "prepared").rglob("*") if path.is_file()} == before
