"""How a run was made, for a report: its options and their origins, training curves, software and machines."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrtool.commands.report.study import Study
from cxrtool.data.file_names import CURVES, SPLITS
from cxrtool.data.splitting.made_by import COMMAND as SPLIT
from cxrtool.data.splitting.made_by import PIPE, as_typed
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


def curves_section(study: Study, sheets: Sequence[Sheet], mean: Sequence[Path]) -> Section | None:
    """The training curves: the mean over the folds with its table, and the first folds; None where there are none."""
    from cxrtool.commands.report.results import caption_of
    from cxrtool.reporting.page import Picture, Section
    from cxrtool.reporting.titles import CURVES as TITLE

    drawn = [fold / CURVES for fold in study.folds if _is_picture(fold / CURVES)]
    if not drawn and not mean:
        return None
    pictures = [Picture(path, caption_of(path.stem)) for path in mean]
    pictures += [
        Picture(path, f"Loss and accuracy of fold {path.parent.name} by epoch; vertical line: the epoch that was kept.")
        for path in drawn[:SHOWN_FOLDS]
    ]
    rest = len(drawn) - SHOWN_FOLDS
    others = "the other fold is in its folder" if rest == 1 else f"the other {rest} folds are in their folders"
    lines = [f"The figure of {others} as {CURVES}."] if rest > 0 else []
    return Section(TITLE, lines, sheets, pictures, folded=True)


def machines_section(study: Study, last: Sequence[str] = ()) -> Section:
    """Software, machines, seeds and command lines of every step that is known; `last` is the call of the report."""
    from cxrtool.evaluation.tables import Sheet, count_of
    from cxrtool.reporting.page import Section
    from cxrtool.reporting.titles import MACHINES

    made = [origin.made for origin in study.origins if origin.made]
    made += [study.fold or study.made] if study.fold or study.made else []
    rows: list[list[str]] = []
    versions: dict[str, dict[str, list[str]]] = {}
    for entry in made:
        machine, notes = entry.get("machine", {}), entry.get("training", {})
        name, seconds = str(entry.get("command")), entry.get("seconds", "")
        for software, version in {"Python": machine.get("python", ""), **entry.get("versions", {})}.items():
            versions.setdefault(software, {}).setdefault(str(version), []).append(name)
        if entry is study.fold:
            name = f"{name}, {count_of(len(study.folds), 'fold')}"
            seconds = round(sum(float((read_run_file(fold) or {}).get("seconds", 0)) for fold in study.folds), 1)
        where = f"{machine.get('system', '')}, {count_of(machine.get('processors', '?'), 'processor')}"
        where += f", {notes['device']}" if notes.get("device") else ""
        started = str(entry.get("started", "")).replace("T", " ")[:16]
        rows.append([name, started, str(seconds), str(entry.get("seed", "")), str(entry.get("threads", "")), where])
    sheets = []
    if rows:
        columns = ["step", "started (UTC)", "seconds", "seed", "threads", "machine"]
        sheets.append(Sheet("Steps", columns, rows, []))
        used = [[software, _of_steps(found)] for software, found in versions.items()]
        sheets.append(Sheet("Versions", ["software", "version"], used, []))
    if study.fold.get("training"):
        sheets.append(_network(study.fold["training"]))
    lines = command_lines(study)
    if lines:
        repeat = "The commands, in their order, in the folder in which each was started."
        lines = [repeat, *(COMMAND + line for line in [*lines, *_audit_line(study), *last])]
    else:
        lines = ["The run that made the predictions is not available, so how they were made is not known."]
        lines += [COMMAND + line for line in last]
    return Section(MACHINES, lines, sheets, folded=True)


def _of_steps(versions: Mapping[str, Sequence[str]]) -> str:
    """The version of a software; each with its steps where they differ.

    >>> _of_steps({"1.0": ["prepare", "train"]}), _of_steps({"1.0": ["prepare"], "1.1": ["train"]})
    ('1.0', '1.0 (prepare), 1.1 (train)')
    """
    if len(versions) == 1:
        return next(iter(versions))
    return ", ".join(f"{version} ({', '.join(steps)})" for version, steps in versions.items())


def _audit_line(study: Study) -> list[str]:
    made = read_run_file(study.audit.folder) if study.audit else None
    return [shlex.join(["cxrtool", *words_of(made)])] if made and made.get("argv") else []


def command_lines(study: Study) -> list[str]:
    """The command lines that led to a run, in order.

    That of the splits, which is recorded without paths, is before the first that uses them, with their paths. A
    training that prepared and divided the images itself is one command.
    """
    made = [origin.made for origin in study.origins if origin.made]
    if study.made and _divided_itself(study.made):
        inside = study.run.absolute() if study.run else Path()
        own = [origin.made for origin in study.origins if origin.path.absolute().is_relative_to(inside)]
        made = [entry for entry in made if entry not in own]
        return [shlex.join(["cxrtool", *words_of(entry)]) for entry in [*made, study.made] if entry.get("argv")]
    made += [study.made] if study.made else []
    made = [entry for entry in made if entry.get("argv")]
    lines = [shlex.join(["cxrtool", *words_of(entry)]) for entry in made]
    splits = [as_typed(line) for line in study.splits.made_by] if study.splits else []
    used = [any(str(word).partition("=")[0] == "--splits" for word in entry["argv"]) for entry in made]
    first = used.index(True) if True in used else max(len(lines) - 1, 0)
    if True in used and len(splits) == 1:
        splits = [_with_paths(splits[0], made[first])]
    return [*lines[:first], *splits, *lines[first:]]


def _divided_itself(made: Mapping[str, Any]) -> bool:
    """Whether a training had --folds or --holdout: then its splits are inside the run itself."""
    splits = (made.get("options", {}).get("splits") or {}).get("value")
    words = [str(word) for word in made.get("argv", [])]
    outs = [after for word, after in pairwise(words) if word in ("-o", "--out")]
    outs += [word.removeprefix("--out=") for word in words if word.startswith("--out=")]
    return bool(splits) and any(Path(str(splits)) == Path(out, SPLITS) for out in outs)


def _with_paths(line: str, made: Mapping[str, Any]) -> str:
    """The command line of `cxrtool split` with the manifest and the file of the step that used its splits."""
    manifest, splits = ((made.get("options", {}).get(name) or {}).get("value") for name in ("manifest", "splits"))
    start, command, rest = line.partition(f"cxrtool {SPLIT} ")
    if not manifest or not splits or start or PIPE in rest:
        return line
    return f"{command}{shlex.quote(str(manifest))} {rest} -o {shlex.quote(str(splits))}"


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
