"""Fuse predictions into predictions: two binary networks, the twins of an image, or several runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from cxrtool.commands.fuse.joint import CONFLICTS, fuse_joint
from cxrtool.commands.fuse.mean import fuse_mean
from cxrtool.commands.fuse.source import Source
from cxrtool.commands.fuse.twins import fuse_twins
from cxrtool.data.tables.manifest import FILE_NAME
from cxrtool.data.tables.predictions import Predictions, dump_predictions, read_predictions, write_predictions
from cxrtool.errors import UsageError
from cxrtool.flow.run import read_run_predictions
from cxrtool.flow.settings import Settings

STDIN = Path("-")
NAMES = "normal,pathological,covid"
KINDS = {"joint": "A B", "twins": "RUN", "mean": "RUN..."}
"""What there is to fuse, and what each takes."""

OWN = {"names": "joint", "rule": "joint", "on_conflict": "joint", "prior_correct": "joint", "positive": "twins"}
"""Options that go with one kind alone."""


@dataclass(frozen=True)
class FuseOptions:
    """The options of `cxrtool fuse`.

    Attributes:
        kind: `joint`, `twins` or `mean`.
        sources: Runs, or tables of predictions.
        names: Of `joint`: the classes that A and B together tell apart, with commas between.
        rule: Of `joint`: how two probabilities become three.
        on_conflict: Of `joint`: what is said where A says normal and B covid.
        prior_correct: Of `joint`: undo the prior that B was trained with.
        positive: Of `twins`: the class that ties go to.
        partial: Take a run of which some folds are missing.
    """

    kind: str
    sources: tuple[Path, ...]
    names: str | None = None
    rule: str | None = None
    on_conflict: str | None = None
    prior_correct: bool = False
    positive: str | None = None
    partial: bool = False


def fuse(options: FuseOptions, settings: Settings) -> None:
    """Fuse predictions and write them, to `settings.out` or to standard output.

    Raises:
        UsageError: Options or a number of sources that the kind does not know.
        InputError: The sources do not fit each other.
        LeakageError: B was trained on a test image of A, and leakage is not allowed.
        IncompleteError: A run lacks folds and `partial` is false.
    """
    _check(options)
    if settings.dry_run:
        settings.report.say(f"would fuse {', '.join(map(str, options.sources))}")
        return
    names = _names(options.names or NAMES)
    sources = [Source(path, _read(path, partial=options.partial)) for path in options.sources]
    work: dict[str, Callable[[], Predictions]] = {
        "joint": lambda: fuse_joint(
            *sources, names=names, rule=options.rule or "product",
            on_conflict=options.on_conflict or CONFLICTS[0], corrected=options.prior_correct, settings=settings,
        ),
        "twins": lambda: fuse_twins(sources[0], options.positive, settings),
        "mean": lambda: fuse_mean(sources, settings),
    }  # fmt: skip
    fused = work[options.kind]()
    if settings.out is None:
        sys.stdout.write(dump_predictions(fused))
    else:
        _write(settings.out, fused, options.sources)


def _check(options: FuseOptions) -> None:
    from cxrtool.evaluation.fusion import RULES

    if options.kind not in KINDS:
        raise UsageError(
            f"expected one of {', '.join(KINDS)}, found '{options.kind}'",
            "; ".join(f"cxrtool fuse {kind} {takes}" for kind, takes in KINDS.items()),
        )
    found, call = len(options.sources), f"cxrtool fuse {options.kind} {KINDS[options.kind]}"
    if found != {"joint": 2, "twins": 1}.get(options.kind, max(2, found)):
        wanted = {"joint": "two", "twins": "one", "mean": "two or more"}[options.kind]
        raise UsageError(f"{options.kind}: expected {wanted} RUN or CSV, found {found}", call)
    defaults = {entry.name: entry.default for entry in fields(options)}
    for name, kind in OWN.items():
        if getattr(options, name) != defaults[name] and options.kind != kind:
            raise UsageError(f"--{name.replace('_', '-')}: goes with `fuse {kind}`, found `fuse {options.kind}`")
    for name, given, known in (("rule", options.rule, tuple(RULES)), ("on-conflict", options.on_conflict, CONFLICTS)):
        if given is not None and given not in known:
            raise UsageError(f"--{name}: expected one of {', '.join(known)}, found '{given}'")


def _names(text: str) -> tuple[str, str, str]:
    names = [name.strip() for name in text.split(",")]
    if len(names) != 3 or len(set(names)) != 3 or not all(names):
        raise UsageError(f"--names: expected three names such as {NAMES}, found '{text}'")
    return names[0], names[1], names[2]


def _read(path: Path, *, partial: bool) -> Predictions:
    predictions = read_predictions(path) if path == STDIN else read_run_predictions(path, partial=partial)
    predictions.name = predictions.name if path == STDIN else str(path)
    return predictions


def _write(out: Path, fused: Predictions, sources: Sequence[Path]) -> None:
    """Write the file; one that says the same already is only made newer, so that Make does not redo what follows."""
    from cxrtool.flow.folder import touch

    text = dump_predictions(fused, out.absolute().parent)
    if out.is_file() and out.read_bytes() == text.encode(errors="backslashreplace"):
        newest = [path / FILE_NAME if (path / FILE_NAME).is_file() else path for path in sources if path.exists()]
        if any(path.stat().st_mtime > out.stat().st_mtime for path in newest):
            touch(out)
        return
    write_predictions(out, fused)
