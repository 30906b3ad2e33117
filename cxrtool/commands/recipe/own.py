"""The chain of commands that made a run, from the `run.json` of its steps and the `made_by` of its splits."""

from __future__ import annotations

import os
import shlex
import time
from calendar import timegm
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cxrtool.commands.recipe.system import Step, Variable
from cxrtool.data.file_names import MANIFEST, RUN_FILE, SPLITS
from cxrtool.data.files import scratch_folder
from cxrtool.data.splitting.splits import read_splits, splits_digest
from cxrtool.data.tables.manifest import SUFFIXES, read_manifest
from cxrtool.errors import InputError, count_of
from cxrtool.flow.chain import is_divided
from cxrtool.flow.folder import read_run_file
from cxrtool.flow.origins import base_of, trace, words_of
from cxrtool.flow.run import is_fold
from cxrtool.flow.settings import Settings

GROUPS = ("fit", "fuse", "weights")
"""Commands whose second word is their kind."""

SWITCHES = {
    *("-q", "--quiet", "--force", "--replace", "--dry-run", "--strict", "--verify", "--allow-leakage", "--partial"),
    *(
        "--abstain",
        "--apply-mask",
        "--calibrated",
        "--check-randomised",
        "--compile",
        "--crop",
        "--drop-duplicates",
        "--erase-lungs",
    ),
    *(
        "--freeze",
        "--unfreeze",
        "--heatmaps",
        "--no-heatmaps",
        "--inside-lungs",
        "--members",
        "--opacities",
        "--prior-correct",
    ),
    *("--quick", "--show-identity", "--table1", "--together", "--tta"),
}
"""Flags without a value."""

OFF = {"freeze": "--unfreeze", "heatmaps": "--no-heatmaps"}
"""The flags of switches that can be turned off."""

ARGUMENTS = ("manifest", "manifests", "sources", "inputs", "source")
"""Recorded options that are arguments."""

DROPPED = {"-q", "--quiet", "--force", "--replace", "--dry-run", "--workers", "--cache", "--root", "-o", "--out"}
"""What says how or where a command ran, and not what it made."""

PATHS = {
    *("--splits", "--within", "--lungs", "--ribs", "--reference", "--weights", "--perceptual", "--like", "--images"),
    *("--generators", "--transform", "--config", "--also", "--external", "--beside", "--manifest", "--audit"),
    *("--fitted-on", "--grader", "--opacity-network", "--run"),
}
"""Options that can name a file or a folder."""

MAIN = {"--model", "--preset", "--size", "--epochs", "--batch-size", "--lr", "--folds", "--holdout", "--repeats"}
"""Options that become variables where they were given."""

SEEDED = {"train", "fit"}
THREADED = {"train", "fit", "segment", "transform", "explain", "evaluate", "audit", "report"}

CLOCK = 3.0
"""Seconds by which times of files of one step may differ."""

STRATA = "label,severity"
"""The strata of `split` on a manifest with all columns, which need not be given."""


@dataclass
class OwnChain:
    """A chain of commands, the earliest first.

    Attributes:
        run: The folder that it makes.
        make: Whether its texts are for make, which has a meaning of its own for `$`.
        settings: To call `split`.
    """

    run: Path
    make: bool
    settings: Settings
    variables: dict[str, Variable] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    _known: dict[Path, str] = field(default_factory=dict)
    _inputs: dict[Path, str] = field(default_factory=dict)
    _names: set[str] = field(default_factory=lambda: {"all"})

    @classmethod
    def of(cls, run: Path, settings: Settings, *, make: bool) -> OwnChain:
        """The chain that made a run, or the folder of any step.

        Raises:
            InputError: There is no such folder, or its command line is not recorded.
        """
        if not run.exists():
            raise InputError(f"--from {run}: no such folder", "a run is the folder that `cxrtool train -o` wrote")
        folder = _plain(run)
        folder = folder.parent if is_fold(folder) and read_run_file(folder.parent) else folder
        made = read_run_file(folder)
        if made is None:
            raise InputError(
                f"--from {run}: expected the folder of a run or of a step, found no {RUN_FILE} in it",
                "`train`, `fit` and every step with -o FOLDER write one",
            )
        chain = cls(folder, make, settings)
        chain._set("OUT", f"{folder.name}-again", "output folder")
        if made["command"] in THREADED and made.get("threads"):
            chain._set("THREADS", str(made["threads"]), "threads; results depend on it in the last digits")
        if made["command"] != "train":
            chain._step(folder, made)
        else:
            chain._names |= {"evaluate", "evaluation"}
            name = chain._step(folder, made)
            line = f'evaluate "${{OUT}}/{name}" -o "${{OUT}}/evaluation"'
            chain.steps.append(Step("evaluate", "Metrics, intervals, plots.", "evaluation", line, (name,)))
        return chain

    def _step(self, folder: Path, made: Mapping[str, Any]) -> str:
        """Add a step after those that it needs; return its name."""
        words, command = words_of(made) if made.get("argv") else [], str(made["command"])
        if not words:
            raise InputError(f"{folder}: its command line is not recorded", "it was made by a function, not by cxrtool")
        name = self._known[folder] = self._name(folder.name)
        count = 2 if command in GROUPS and len(words) > 1 else 1
        base = base_of(folder, made) or Path.cwd()
        given = _parse(words[count:], made)
        target, line = folder == self.run, list(words[:count])
        needs: list[str] = []
        manifest: Path | None = None
        for flag, value in given:
            if flag in DROPPED or flag in ("--seed", "--threads") or (command == "train" and flag == "--only"):
                continue
            if not flag and value is not None:
                path = self._standard_input(folder, command) if value == "-" else _find(value, base)
                manifest = manifest or path
                mark, _, after = value.partition("=")
                if not path.exists() and after and _find(after, base).exists():
                    line.append(f"{self._quote(mark)}={self._place(_find(after, base), needs, folder)}")
                else:
                    line.append(self._place(path, needs, folder))
            elif value is None:
                line.append(flag)
            elif flag == "--salt":
                line += [flag, self._set("SALT", "not-recorded", "the salt of `prepare`, which is never recorded")]
            elif flag in ("--splits", "--within"):
                line += [flag, self._splits(_find(value, base), manifest, needs, folder)]
            elif flag in PATHS and value and _find(value, base).exists():
                line += [flag, self._place(_find(value, base), needs, folder, flag)]
            elif flag == "--device" and target:
                pass
            elif flag in MAIN:
                short = _upper(flag) if target else f"{_upper(command)}_{_upper(flag)}"
                line += [flag, self._set(short, value, f"{flag} of `{command}`", own=True)]
            else:
                line += [flag, self._quote(value)]
        flags = {flag for flag, _ in given}
        if command in SEEDED or "--seed" in flags:
            short = "SEED" if target else f"{_upper(command)}_SEED"
            line += ["--seed", self._set(short, str(made.get("seed", 0)), f"seed of `{command}`", own=True)]
        if command in THREADED and made.get("threads"):
            known = self.variables.get("THREADS")
            text = '"${THREADS}"' if known and known.default == str(made["threads"]) else str(made["threads"])
            line += ["--threads", text]
        if target and command in SEEDED:
            device = next((value for flag, value in given if flag == "--device"), None)
            more = f"--device {device}" if device else ""
            self._set(_upper(command), more, f"further options of `{command}`, such as --epochs 4")
            line.append(f"${{{_upper(command)}}}")
        line += ["-o", f'"${{OUT}}/{name}"']
        shown = " ".join(words[:count])
        self.steps.append(Step(name, f"What `{shown}` made in {_shown(folder)}.", name, " ".join(line), tuple(needs)))
        return name

    def _place(self, path: Path, needs: list[str], reader: Path, flag: str = "") -> str:
        """A file or folder that a step reads, as text: what an earlier step makes, or a variable."""
        owner = _owner(path)
        if owner is None or owner == reader:
            gone = "" if path.exists() else "; it is no longer there"
            known = "" if owner or path.suffix.lower() not in SUFFIXES else "; how it was made is not recorded"
            return self._input(path, reader, flag, gone or known)
        made = read_run_file(owner) or {}
        if made["command"] == "phantom":
            return self._input(path, reader, flag, f"; made by `cxrtool {shlex.join(words_of(made))}`")
        if not made.get("argv"):
            return self._input(path, reader, flag, "; its command line is not recorded")
        if made["command"] != "train" and "-" in words_of(made):
            return self._input(path, reader, flag, f"; `{made['command']}` read standard input, which is not recorded")
        if why := _changed(owner, made):
            return self._input(path, reader, flag, f"; {why}, which is not recorded")
        name = self._known.get(owner) or self._step(owner, made)
        if name not in needs:
            needs.append(name)
        rest = path.relative_to(owner).as_posix()
        return f'"${{OUT}}/{name}"' if rest in (".", MANIFEST) else f'"${{OUT}}/{name}/"{self._quote(rest)}'

    def _splits(self, path: Path, manifest: Path | None, needs: list[str], reader: Path) -> str:
        """A division, as text: made again where its column `made_by` is true, otherwise a variable."""
        path = path / SPLITS if path.is_dir() else path
        if path in self._known:
            needs.append(self._known[path])
            return f'"${{OUT}}/{self._known[path]}.csv"'
        copy = reader / SPLITS
        # The run's own copy is what it was trained on; the file may have changed since.
        same = not copy.is_file() or (path.is_file() and splits_digest(path) == splits_digest(copy))
        file = path if same else copy
        if not file.is_file():
            return self._input(path, reader, "--splits", "; it is no longer there")
        made_by = read_splits(file).made_by
        if len(made_by) != 1 or " | " in made_by[0]:
            why = "made by hand, or its column made_by was removed" if not made_by else "made from another division"
            return self._input(file, reader, "--splits", f"; {why}: how is not recorded")
        words = shlex.split(made_by[0])[1:]
        divided = self._divided(file, words, manifest)
        if divided is None:
            return self._input(file, reader, "--splits", f"; not what `cxrtool {made_by[0]}` makes of these images")
        own: list[str] = []
        line = ["split", self._place(divided, own, reader)]
        for flag, value in zip(words[::2], words[1::2], strict=True):
            if flag == "--seed":
                line += [flag, self._set("SPLIT_SEED", value, "seed of `split`", own=True)]
            elif flag in MAIN:
                line += [flag, self._set(_upper(flag), value, f"{flag} of `split`", own=True)]
            elif (flag, value) != ("--stratify", STRATA):
                line += [flag, self._quote(value)]
        name = self._known[path] = self._name(path.stem)
        line += ["-o", f'"${{OUT}}/{name}.csv"']
        helps = f"The division in {_shown(file)}, from its column made_by."
        self.steps.append(Step(name, helps, f"{name}.csv", " ".join(line), tuple(own)))
        needs.append(name)
        return f'"${{OUT}}/{name}.csv"'

    def _divided(self, splits: Path, words: Sequence[str], manifest: Path | None) -> Path | None:
        """The manifest that was divided: the latest with these images from which `split` makes the same file."""
        ids = read_splits(splits).ids()
        for origin in reversed(trace([manifest] if manifest else [], [])):
            rows = origin.manifest.rows
            labelled = {row["image_id"] for row in rows if row.get("label")} or {row["image_id"] for row in rows}
            if origin.command == "train" or is_divided(origin.manifest) or labelled != ids:
                continue
            with scratch_folder("recipe") as place:
                again = place / SPLITS
                self.settings.call(["split", str(origin.path), *words, "-o", str(again), "--quiet"])
                # From Python there may be nothing to call: the same images must do.
                if not again.exists() or splits_digest(again) == splits_digest(splits):
                    return origin.path
        return None

    def _standard_input(self, folder: Path, command: str) -> Path:
        """The table that stands for standard input: a run keeps its own."""
        if command == "train" and (folder / MANIFEST).is_file():
            return folder / MANIFEST
        raise InputError(
            f"{folder}: `{command}` read standard input, which is not recorded", "run it on a file, and then --from"
        )

    def _input(self, path: Path, reader: Path, flag: str, why: str) -> str:
        """A variable for a file or folder that is not made here."""
        if path not in self._inputs:
            command = (read_run_file(reader) or {}).get("command")
            helps = f"what `{command}{f' {flag}' if flag else ''}` reads"
            wanted = "DATA" if not flag else _upper(flag)
            text = self._set(wanted, _shown(path), helps + why, own=True)
            self._inputs[path] = text
        return self._inputs[path]

    def _set(self, name: str, default: str, helps: str, *, own: bool = False) -> str:
        """A variable as text; with `own` one of that name for other values gets a number."""
        wanted, number = name, 1
        while own and wanted in self.variables:
            number += 1
            wanted = f"{name}{number}"
        self.variables.setdefault(wanted, Variable(wanted, default, helps))
        return f'"${{{wanted}}}"'

    def _name(self, text: str) -> str:
        """A name for a target that no other has."""
        plain = "".join(
            letter if letter.isascii() and (letter.isalnum() or letter in "-_.") else "-" for letter in text
        )
        name, number = plain.lstrip(".-") or "step", 1
        while name in self._names:
            number += 1
            name = f"{plain}-{number}"
        self._names.add(name)
        return name

    def _quote(self, word: str) -> str:
        return shlex.quote(word).replace("$", "$$") if self.make else shlex.quote(word)

    def text(self) -> str:
        """The Makefile or shell script."""
        shown = shlex.quote(_shown(self.run))
        form, call = ("", "make -f own.mk {}") if self.make else (" --format sh", "{} sh own.sh")
        data = "DATA=images " if "DATA" in self.variables else ""
        lines = [] if self.make else ["#!/bin/sh"]
        lines += [f"# The chain of commands that made {shown}", "#"]
        lines += [f"# Printed by `cxrtool recipe --from {shown}{form}`. Other values replace those below:", "#"]
        lines += [f"#     {call.format(data + 'OUT=again')}", "#"]
        lines += [
            "# Every command checks whether its input has changed, so that what is made already is not made again."
        ]
        lines += [] if self.make else ["set -eu"]
        lines.append("")
        first = ("DATA", "OUT", "SEED")
        ordered = sorted(self.variables.values(), key=lambda one: first.index(one.name) if one.name in first else 9)
        for one in [*ordered, Variable("CXRTOOL", "cxrtool", "how cxrtool is called")]:
            lines.append(f"# {one.help}")
            escaped = one.default.replace("$", "$$").replace("#", "\\#")
            lines.append(
                f"{one.name} ?= {escaped}" if self.make else f"{one.name}=${{{one.name}-{_bare(one.default)}}}"
            )
        lines.append("")
        if self.make:
            names = " ".join(step.name for step in self.steps)
            lines += [f".PHONY: all {names}", f"all: {names}", ""]
        for step in self.steps:
            lines.append(f"# {step.help}")
            if self.make:
                lines += [" ".join([f"{step.name}:", *dict.fromkeys(step.needs)]), f"\t${{CXRTOOL}} {step.command}", ""]
            else:
                lines += [f"${{CXRTOOL}} {step.command}", ""]
        return "\n".join(line.rstrip() for line in lines).rstrip("\n") + "\n"


def _bare(text: str) -> str:
    return shlex.quote(text) if text else ""


def _upper(flag: str) -> str:
    return flag.lstrip("-").replace("-", "_").upper()


def _plain(path: Path) -> Path:
    return Path(os.path.normpath(path.absolute()))


def _shown(path: Path) -> str:
    """A path relative to here where it is below, otherwise absolute."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _find(text: str, base: Path) -> Path:
    """A path of a command line: relative to where the command was started, or to here."""
    found = [_plain(base / text), _plain(Path(text))]
    return next((path for path in found if path.exists()), found[0])


def _owner(path: Path) -> Path | None:
    """The step folder that a path is, or is in; for a fold, and for what `train` prepared itself, the run."""
    for folder in (path, *list(path.parents)[:2]):
        if read_run_file(folder) is not None:
            above = read_run_file(folder.parent) or {}
            inside = is_fold(folder) or (above.get("command") == "train" and "implied" in above)
            return folder.parent if above and inside else folder
    return None


def _changed(folder: Path, made: Mapping[str, Any]) -> str:
    """Why the manifest of a step is not what the step wrote; empty where nothing tells so."""
    table, images = folder / MANIFEST, made.get("counts", {}).get("images")
    if not table.is_file() or made["command"] == "train":
        return ""
    rows = len(read_manifest(folder).rows)
    if isinstance(images, int) and images != rows:
        return f"{MANIFEST} was edited: `{made['command']}` wrote {count_of(images, 'row')}, it has {rows}"
    try:
        ended = timegm(time.strptime(made["started"], "%Y-%m-%dT%H:%M:%SZ")) + float(made["seconds"])
    except (KeyError, TypeError, ValueError):
        return ""
    written, base = (folder / RUN_FILE).stat().st_mtime, base_of(folder, made) or Path.cwd()
    if abs(written - ended) > CLOCK or table.stat().st_mtime - written <= CLOCK:
        # The times of a copied folder tell nothing.
        return ""
    inputs = [_find(word, base) for word in words_of(made)[1:] if not word.startswith("-")]
    tables = [path / MANIFEST if (path / MANIFEST).is_file() else path for path in inputs if path != folder]
    if any(path.is_file() and path.stat().st_mtime > written for path in tables):
        # A step that is up to date touches its table after that of its input.
        return ""
    return f"{MANIFEST} was written again after `{made['command']}`, so it may have been edited"


def _parse(words: Sequence[str], made: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """The options of a command line as pairs of flag and value; arguments have no flag, switches no value.

    What a configuration file has set is added from the recorded options, without the file.
    """
    options = {name: entry for name, entry in made.get("options", {}).items() if isinstance(entry, dict)}
    found: list[tuple[str, str | None]] = []
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        if not word.startswith("-") or word == "-":
            found.append(("", word))
        elif "=" in word and word.startswith("--"):
            flag, _, value = word.partition("=")
            found.append((flag, value))
        elif word in SWITCHES or not waiting:
            found.append((word, None))
        else:
            found.append((word, waiting.pop(0)))
    if any(flag == "--config" for flag, _ in found):
        found = [(flag, value) for flag, value in found if flag != "--config"]
        for name, entry in options.items():
            set_to, flag = entry.get("value"), f"--{name.replace('_', '-')}"
            if entry.get("origin") != "config" or set_to is None:
                continue
            values = set_to if isinstance(set_to, list) else [set_to]
            if isinstance(set_to, bool):
                switch = flag if set_to else OFF.get(name)
                found += [(switch, None)] if switch else []
            else:
                found += [("" if name in ARGUMENTS else flag, str(one)) for one in values]
    # The manifest has to be known before the splits.
    return sorted(found, key=lambda pair: bool(pair[0]))
