"""What the tests of the pages share."""

from dataclasses import replace

import pytest

from cxrtool.commands.report import report
from cxrtool.commands.report.options import ReportOptions
from cxrtool.flow.settings import Settings


@pytest.fixture
def make(settings, tmp_path, monkeypatch):
    """Report and read the page."""
    monkeypatch.chdir(tmp_path)

    def call(*inputs, out="report.html", **changes):
        shared = {name: changes.pop(name) for name in list(changes) if name in Settings.__dataclass_fields__}
        told = ReportOptions(inputs=tuple(map(str, inputs)), resamples=40, **changes)
        written = report(told, replace(settings, out=tmp_path / out, **shared))
        return written.read_text(encoding="utf-8") if written else None

    return call
