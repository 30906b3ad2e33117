"""How a run was made, for a report: its options and their origins, training curves, software and machines."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrtool.commands.report.study import Study
from cxrtool.data.file_names import CURVES
from cxrtool.data.splitting.made_by import as_typed
from cxrtool.flow.folder import read_run_file
from cxrtool.flow.origins import words_of

if TYPE_CHECKING:
    from cxrtool.evaluation.tables import Sheet
    from cxrtool.reporting.page import Section

SHOWN_FOLDS = 4
"""Folds whose training curves are shown one by one."""

ORIGINS = {"flag": "command line", "config": "configuration file", "environment": "environment variable"}

COMMAND = "$ "


def settings_section(study: Study) -> Section | None:
    """The options of training; None for predictions alone."""
    from cxrtool.evaluation.tables import Sheet
    from cxrtool.reporting.page import Section
    from cxrtool.reporting.titles import SETTINGS

    options = study.made.get("options", {})
    if not options:
        return None
    rows = [
        [name.replace("_", "-"), _plain(entry.get("value")), ORIGINS.get(entry["origin"], entry["origin"])]
        for name, entry in options.items()
        if isinstance(entry, dict) and "origin" in entry
    ]
    rows.append(["seed", str(study.made.get("seed")), ""])
    sheet = Sheet(
        "Options",
        ["option", "value", "from"],
        rows,
        [
            "From: what set the value. A preset has the values of a publication, a default is that of cxrtool.",
        ],
    )
    preset = (options.get("preset") or {}).get("value")
    lines = [f"Preset {preset}, with the changes of the command line."] if preset else []
    return Section(SETTINGS, lines, [sheet], folded=True)


def curves_section(study: Study, mean: Sequence[Path]) -> Section | None:
    """The training curves: `mean` over the folds, and those of the first folds; None where there are none."""
    from cxrtool.commands.report.results import caption_of
    from cxrtool.reporting.page import Picture, Section
    from cxrtool.reporting.titles import CURVES as TITLE

    drawn = [fold / CURVES for fold in study.folds if _is_picture(fold / CURVES)]
    if not drawn and not mean:
        return None
    pictures = [Picture(path, caption_of(path.stem)) for path in mean]
    pictures += [
        Picture(path, f"Loss and accuracy of fold {path.parent.name} by epoch; dashed line: the epoch that was kept.")
        for path in drawn[:SHOWN_FOLDS]
    ]
    rest = len(drawn) - SHOWN_FOLDS
    lines = [f"The curves of the other {rest} folds are in their folders as {CURVES}."] if rest > 0 else []
    return Section(TITLE, lines, (), pictures, folded=True)


def machines_section(study: Study) -> Section:
    """Software, machines, seeds and command lines of every step that is known."""
    from cxrtool.evaluation.tables import Sheet, count_of
    from cxrtool.reporting.page import Section
    from cxrtool.reporting.titles import MACHINES

    made = [origin.made for origin in study.origins if origin.made]
    made += [study.fold or study.made] if study.fold or study.made else []
    rows: list[list[str]] = []
    versions: dict[str, Any] = {}
    for entry in made:
        machine, notes = entry.get("machine", {}), entry.get("training", {})
        name, seconds = str(entry.get("command")), entry.get("seconds", "")
        if entry is study.fold:
            name = f"{name}, {count_of(len(study.folds), 'fold')}"
            seconds = round(sum(float((read_run_file(fold) or {}).get("seconds", 0)) for fold in study.folds), 1)
        where = f"{machine.get('system', '')}, {machine.get('processors', '?')} processors"
        where += f", {notes['device']}" if notes.get("device") else ""
        started = str(entry.get("started", "")).replace("T", " ")[:16]
        rows.append([name, started, str(seconds), str(entry.get("seed", "")), str(entry.get("threads", "")), where])
        versions |= {"Python": machine.get("python", ""), **entry.get("versions", {})}
    sheets = []
    if rows:
        columns = ["step", "started (UTC)", "seconds", "seed", "threads", "machine"]
        sheets.append(Sheet("Steps", columns, rows, []))
        sheets.append(Sheet("Versions", ["software", "version"], [[n, str(v)] for n, v in versions.items()], []))
    if study.fold.get("training"):
        sheets.append(_network(study.fold["training"]))
    lines = [COMMAND + line for line in command_lines(study)]
    if not lines:
        lines = ["The run that made the predictions is not available, so how they were made is not known."]
    return Section(MACHINES, lines, sheets)


def command_lines(study: Study) -> list[str]:
    """The command lines that led to a run, in order; that of the splits, which has no paths, before their first use."""
    made = [origin.made for origin in study.origins if origin.made]
    made += [study.made] if study.made else []
    made = [entry for entry in made if entry.get("argv")]
    lines = [shlex.join(["cxrtool", *words_of(entry)]) for entry in made]
    splits = [as_typed(line) for line in study.splits.made_by] if study.splits else []
    used = [any(str(word).partition("=")[0] == "--splits" for word in entry["argv"]) for entry in made]
    first = used.index(True) if True in used else max(len(lines) - 1, 0)
    return [*lines[:first], *splits, *lines[first:]]


def _network(notes: Mapping[str, Any]) -> Sheet:
    from cxrtool.evaluation.tables import Sheet

    rows = [[name.replace("_", " "), _plain(value)] for name, value in notes.items()]
    return Sheet("Training of the first fold", ["quantity", "value"], rows, [])


def _plain(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, int) and abs(value) >= 10_000:
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(entry)}" for name, entry in value.items())
    return str(value)


def _is_picture(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == b"\x89PNG"
    except OSError:
        return False
