"""The steps that `train --folds` and `train --holdout` imply: `prepare` of raw images, and `split`, inside the run.

They are called by their command lines, so that the run is what the three commands make.
"""

from __future__ import annotations

import json
import shlex
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cxrtool
from cxrtool.commands.train.options import TrainOptions
from cxrtool.data.digests import FILES
from cxrtool.data.file_names import MANIFEST, PREDICTIONS, RUN_FILE, SPLITS
from cxrtool.data.files import atomic_write, is_stream, locked, no_such, saying_what_fails
from cxrtool.data.splitting.divider import parse_holdout
from cxrtool.data.tables.manifest import SUFFIXES, read_manifest, read_table
from cxrtool.errors import InputError, OutputError, UsageError
from cxrtool.flow.folder import Inputs, Plan, StepFolder, read_run_file
from cxrtool.flow.run import is_fold
from cxrtool.flow.settings import Settings, Silent
from cxrtool.options import exactly_one

PREPARED = "prepared"
"""The folder of `prepare` inside the run."""

IMPLIED = "implied"
"""The entry of the run's `run.json` with the images and the division, to recognise them later."""

PLAN = Plan("train", {}, Inputs("", 0.0, 0))
"""Stands for a training whose images are not prepared yet."""

Line = list[str]


@dataclass(frozen=True)
class Implied:
    """The steps before a training.

    Attributes:
        lines: The command lines, in order, without the name of the program.
        options: The training on their result.
        mark: The digest of the images and of the division.
    """

    lines: list[Line]
    options: TrainOptions
    mark: str

    @classmethod
    def of(cls, options: TrainOptions, settings: Settings) -> Implied | None:
        """The steps that the options imply; None where `--splits` is given.

        Raises:
            UsageError: Not exactly one of `--splits`, `--folds` and `--holdout` is given, or the output is among the
                images.
            InputError: There is no such input, or it has no images.
            OutputError: The output was not made by `train`.
        """
        check_ways(options)
        if options.splits is not None:
            return None
        source, out = options.manifest, settings.out
        # Refuses a training without -o, and a folder that another command made.
        StepFolder(out, PLAN, replace(settings, report=Silent(), dry_run=True)).needs_work()
        if out is None:
            return None
        if options.holdout is not None:
            parse_holdout(options.holdout)
        raw = is_raw(source)
        if raw and source.is_dir() and out.resolve().is_relative_to(source.resolve()):
            raise UsageError(
                f"-o {out}: expected a folder outside of the images in {source}, found one inside",
                f"its pictures would be read as radiographs; for instance -o {source.resolve().name}-run",
            )
        way = ["--folds", str(options.folds)] if options.folds is not None else ["--holdout", str(options.holdout)]
        root = ["--root", str(settings.root)] if settings.root else []
        seed = ["--seed", str(settings.seed)] if settings.seed else []
        lines, manifest = [], source
        if raw:
            manifest = out / PREPARED
            checks = [flag for flag, given in (("--strict", settings.strict), ("--verify", settings.verify)) if given]
            lines.append(["prepare", str(source), *root, *checks, "-o", str(manifest)])
        # What was read below --root is in the run now.
        below = [] if raw else root
        lines.append(["split", str(manifest), *way, *seed, *below, "-o", str(out / SPLITS)])
        settled = replace(options, manifest=manifest, splits=out / SPLITS, folds=None, holdout=None)
        return cls(lines, settled, _mark(source, way, settings, raw=raw))

    def run(self, settings: Settings) -> int:
        """Run the steps, unless this was done before with the same images; return the exit code of one that failed.

        Several tasks of one run wait for the first of them.

        Raises:
            OutputError: The folder has finished folds of other images or another division.
        """
        out = settings.out
        if out is None:
            return 0
        run = StepFolder(out, PLAN, settings)
        if settings.dry_run:
            if not self._is_done(run.out, settings):
                settings.report.say(f"would first run {self.shown}")
            return 0
        with saying_what_fails(run.out), locked(run.out.parent / f".{run.out.name}.{PREPARED}.lock"):
            if self._is_done(run.out, settings):
                return 0
            _begin(run.out, settings)
            settings.report.say(f"first: {self.shown}")
            for line in self.lines:
                # The splits of this run are its own, and no other's.
                force = ["--force"] if settings.force or line[0] == "split" else []
                workers = ["--workers", str(settings.workers)] if line[0] == "prepare" else []
                if code := settings.call([*line, *workers, *force, *(["--quiet"] if settings.quiet else [])]):
                    return code
            # Only now: after an interruption the steps are repeated, and do what is missing.
            made = {**(read_run_file(run.out) or {}), IMPLIED: self.mark}
            atomic_write(run.out / RUN_FILE, json.dumps(made, indent=1, default=str) + "\n")
        return 0

    def is_done(self, settings: Settings) -> bool:
        """Whether the steps were run before, with the same images; an `OutputError` as in `run`."""
        return settings.out is not None and self._is_done(StepFolder(settings.out, PLAN, settings).out, settings)

    @property
    def shown(self) -> str:
        """The command lines as one line."""
        return "; ".join(shlex.join(["cxrtool", *line]) for line in self.lines)

    def _is_done(self, run: Path, settings: Settings) -> bool:
        """Whether the steps are complete; an `OutputError` if other finished folds would be lost."""
        made = read_run_file(run) or {}
        whole = (run / SPLITS).is_file() and (len(self.lines) == 1 or (run / PREPARED / MANIFEST).is_file())
        if settings.force or settings.replace:
            return False
        if made.get(IMPLIED) == self.mark:
            return whole
        finished = run.is_dir() and any(is_fold(path) and (path / PREDICTIONS).is_file() for path in run.iterdir())
        if finished:
            raise OutputError(
                f"-o {settings.out}: expected a new folder or a run of the same images and division, found finished "
                "folds of others",
                "choose another -o; --replace trains what has changed in its place, --force everything",
            )
        return False


def check_ways(options: TrainOptions) -> None:
    """Raise a `UsageError` unless exactly one of `--splits`, `--folds` and `--holdout` is given."""
    source = shlex.quote(str(options.manifest))
    # Nothing is read here: the source may be standard input, or missing.
    before = f"`cxrtool prepare {source} -o prepared`, " if _is_raw_folder(options.manifest) else ""
    name = "prepared" if before else source
    exactly_one(
        {"--splits": options.splits, "--folds": options.folds, "--holdout": options.holdout},
        f"in one command: --folds 5, or --holdout 80/20; step by step: {before}`cxrtool split {name} --folds 5 "
        f"-o splits.csv`, then `cxrtool train {name} --splits splits.csv`",
    )


def _is_raw_folder(source: Path) -> bool:
    return source.is_dir() and not (source / MANIFEST).is_file()


def is_raw(source: Path) -> bool:
    """Whether an input is raw images or a table of them, and neither a manifest, also in a stream, nor a step's folder.

    Raises:
        InputError: There is no such file or folder.
    """
    if is_stream(source):
        return False
    if not source.exists():
        raise InputError(no_such(source, "file or folder"), "name a folder of images, a table or a manifest")
    if source.is_dir():
        return _is_raw_folder(source)
    # A workbook is no manifest.
    return source.suffix.lower() not in SUFFIXES or not {"image_id", "path"} <= set(read_table(source).columns)


def _mark(source: Path, way: Sequence[str], settings: Settings, *, raw: bool) -> str:
    """The digest of images and division, from names, sizes and times, without opening an image."""
    import hashlib

    if raw:
        from cxrtool.data.datasets.listing import list_images
        from cxrtool.data.datasets.record import Request

        listing = list_images([source], None, Request(), None)
        more = [file for r in listing.records for file in (r.header, *r.masks[1:]) if file]
        inputs = Inputs.of(*listing.tables, files=more, verify=settings.verify)
    else:
        inputs = Inputs.of(read_manifest(source, root=settings.root), verify=settings.verify)
    content = [inputs.digest, *way, settings.seed, cxrtool.__version__]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _begin(run: Path, settings: Settings) -> None:
    """Make the folder of the run where there is none; it never exists without `run.json`."""
    if (made := read_run_file(run)) is not None:
        # The division is made again, in its place.
        if made.pop(FILES, None):
            atomic_write(run / RUN_FILE, json.dumps(made, indent=1, default=str) + "\n")
        return
    fresh = run.parent / f".{run.name}.new"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    begun = {"command": PLAN.command, "argv": list(settings.argv), "options": {}, "started": time.time()}
    atomic_write(fresh / RUN_FILE, json.dumps(begun, indent=1, default=str) + "\n")
    fresh.replace(run)
