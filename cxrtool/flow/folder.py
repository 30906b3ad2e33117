"""The step folder: built under a temporary name, renamed when it is complete, built again only after a change.

A folder with its final name is complete. A step calls `needs_work`; if that is true, it opens `build`, writes into
`Build.path` and closes with `Build.finish`. A process that is killed leaves the temporary folder behind, and the same
command continues in it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import shutil
import stat
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from json.encoder import encode_basestring_ascii
from pathlib import Path
from typing import Any, TypeVar

import cxrtool
from cxrtool import stopping
from cxrtool.data.confinement import confined_to
from cxrtool.data.digests import FILES, altered, entries_of, entry_of
from cxrtool.data.file_names import MANIFEST, REJECTS, RUN_FILE
from cxrtool.data.files import atomic_path, is_stream, locked, saying_what_fails, sha256_file
from cxrtool.data.leftovers import remove, remove_temporaries
from cxrtool.data.structured import load_json
from cxrtool.data.tables.manifest import (
    PATH_COLUMNS,
    Manifest,
    Row,
    order_columns,
    relative_columns,
    relative_rows,
    write_manifest,
    write_table,
)
from cxrtool.data.tables.views import Columns, RowView
from cxrtool.errors import OutputError, StrictError, TakenError, UsageError, count_of
from cxrtool.flow.journal import JOURNAL, Former, Journal, Marks, Records
from cxrtool.flow.settings import Settings
from cxrtool.flow.share import Share, held, share_of
from cxrtool.flow.versions import version_of

Item = TypeVar("Item")

SCHEMA = 1
AT = "_at"
"""The entry of a chain with the path of its part, while a command runs: never written and never compared."""


@dataclass(frozen=True)
class Inputs:
    """The input of a step, as a digest over the table's rows and over size and time (or content) of every file.

    `folders` are those of the files.
    """

    digest: str
    newest: float
    count: int
    folders: frozenset[str] = frozenset()

    @classmethod
    def of(cls, *tables: Manifest | None, files: Iterable[Path] = (), verify: bool = False) -> Inputs:
        """Compute the digest of manifests with their images and masks, and of single files.

        A missing file is recorded as missing: the step itself rejects it. With `verify` the content is hashed.
        """
        hasher = hashlib.sha256()
        newest, paths = 0.0, [str(file) for file in files]
        for table in tables:
            if table is None:
                continue
            for text in _as_json(table):
                hasher.update(text.encode())
            paths += [row[column] for row in table.records for column in PATH_COLUMNS if row.get(column)]
            if table.origin:
                newest = max(newest, table.origin.stat().st_mtime)
        for path in paths:
            if is_stream(path):
                hasher.update(sha256_file(Path(path)).encode())
                continue
            try:
                # Not by `Path`, which is slow for a million images.
                status = os.stat(path)  # noqa: PTH116
            except OSError:
                hasher.update(b"missing")
                continue
            newest = max(newest, status.st_mtime)
            hashed = verify and stat.S_ISREG(status.st_mode)
            mark = sha256_file(Path(path)) if hashed else f"{status.st_size}:{status.st_mtime_ns}"
            hasher.update(mark.encode())
        origins = [str(table.origin) for table in tables if table is not None and table.origin]
        named = {os.path.dirname(path) for path in (*paths, *origins)}  # noqa: PTH120
        folders = frozenset(os.path.abspath(folder) for folder in named)  # noqa: PTH100
        return cls(hasher.hexdigest(), newest, len(paths), folders)

    def after(self, file: Path) -> Inputs:
        """These, but not older than a file whose content is part of the options: writing it again changes nothing."""
        return self if is_stream(file) else replace(self, newest=max(self.newest, file.stat().st_mtime))


def _as_json(table: Manifest) -> Iterator[str]:
    """The rows as `json.dumps` with sorted keys writes them, in parts."""
    records = table.records
    # Relative to the table, so that a project that was moved as a whole is not computed again.
    base = table.origin.absolute().parent if table.origin else None
    if not isinstance(records, Columns):
        yield "["
        begin = ""
        for row in relative_rows(records, base) if base else records:
            yield begin + json.dumps(row, sort_keys=True)
            begin = ", "
        yield "]"
        return
    cells = (relative_columns(records, base) if base else records).cells
    names = sorted(cells)
    form = "{" + ", ".join(f"{json.dumps(name)}: ".replace("%", "%%") + "%s" for name in names) + "}"
    rows = map(form.__mod__, zip(*(map(encode_basestring_ascii, cells[name]) for name in names), strict=True))
    yield "["
    begin = ""
    while batch := ", ".join(islice(rows, 1 << 12)):
        yield begin + batch
        begin = ", "
    yield "]"


@dataclass(frozen=True)
class Plan:
    """Everything that affects a step's result, and nothing else.

    Attributes:
        chain: The preprocessing so far, including this step: what `predict` replays on a raw image.
        libraries: Distributions whose version affects the result.
    """

    command: str
    options: Mapping[str, Any]
    inputs: Inputs
    chain: Sequence[Mapping[str, Any]] = ()
    libraries: Sequence[str] = ("numpy", "opencv-python-headless")
    seeded: bool = False
    threaded: bool = False

    def versions(self) -> dict[str, str]:
        """The versions of cxrtool and of the libraries that the result depends on."""
        return {"cxrtool": cxrtool.__version__} | {name: version_of(name) for name in self.libraries}

    def digest(self, settings: Settings) -> str:
        """The identity of the result: equal digests mean equal bytes on one type of processor."""
        return _digest({**self._content(settings), "inputs": self.inputs.digest})

    def way(self, settings: Settings, without: Sequence[str] = ()) -> str:
        """The identity of the result but for the inputs, and for options whose effect on an item has a mark of its own.

        `without` names these options.
        """
        content = self._content(settings)
        return _digest({**content, "options": {k: v for k, v in self.options.items() if k not in without}})

    def _content(self, settings: Settings) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "command": self.command,
            "options": self.options,
            "versions": self.versions(),
            "seed": settings.seed if self.seeded else None,
            "threads": settings.threads if self.threaded else None,
            "allow_leakage": settings.allow_leakage,
        }


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


@dataclass
class Build:
    """A step folder that is being written."""

    folder: StepFolder
    path: Path
    journal: Journal
    rejects: list[Row] = field(default_factory=list)
    started: float = field(default_factory=time.time)

    def reject(self, path: Path | str, reason: str) -> None:
        """Add a file that cannot be used to `rejects.csv`; a reason that begins with the path does not repeat it."""
        self.rejects.append({"path": str(path), "reason": reason.removeprefix(f"{path}: ")})

    def marks(self, *without: str, secret: str = "") -> Marks:
        """The marks of this step's items; options in `without` have their effect on single items marked elsewhere.

        With a `secret`, nobody can try out which file an item was made from.
        """
        return Marks(secret + self.folder.plan.way(self.folder.settings, without), self.folder.settings.verify)

    @property
    def is_part(self) -> bool:
        """Whether only a share of the images is made, and put aside."""
        return self.folder.share is not None

    def share(self, items: Mapping[str, Item]) -> dict[str, Item]:
        """The items of this share; all where there is none."""
        return self.folder.share.select(items) if self.folder.share else dict(items)

    def put_aside(self, done: int, failed: int = 0) -> None:
        """Say what was made of a share, which the command without `--part` takes over with the others."""
        if self.folder.share:
            self.folder.settings.report.say(self.folder.share.summary(done, failed, self.folder.shown))

    def done(self, marks: Mapping[str, str], what: str = "") -> Records:
        """The records of the items that need not be made: those of an interrupted run, and those of an earlier output.

        The files of the latter are copied. Whatever is done or made under a mark is taken over by later runs. What is
        added to the journal with a mark later is among the records from then on.

        Args:
            marks: The mark of each item, by its key in the journal.
            what: A word for an item, for the message that names their number; none where it is empty.
        """
        found, taken = self.journal.find(marks)
        if what and taken:
            report, number = self.folder.settings.report, count_of(len(marks), what)
            report.say(f"{self.folder.shown}: {taken} of {number} taken over unchanged")
        return found

    def finish(
        self,
        columns: Sequence[str],
        rows: Sequence[RowView],
        *,
        counts: Mapping[str, int] | None = None,
        extra: Mapping[str, Any] | None = None,
        wanted: bool = False,
    ) -> None:
        """Write the manifest, `rejects.csv` and `run.json`; then rename the folder.

        Paths in `rows` are absolute and may be inside `path`. `wanted` means that the user asked to exclude the
        rejects: no warning, and no error with `--strict`.

        Raises:
            StrictError: `--strict`, and something was rejected. The folder is complete nevertheless.
        """
        with saying_what_fails(self.path):
            write_manifest(self.path / MANIFEST, order_columns(columns, rows), rows)
        self.close(counts={"images": len(rows), **(counts or {})}, extra=extra, wanted=wanted)

    def close(self, *, counts: Mapping[str, int], extra: Mapping[str, Any] | None = None, wanted: bool = False) -> None:
        """Add `rejects.csv` and `run.json`, and rename the folder; a `StrictError` as in `finish`."""
        folder, settings = self.folder, self.folder.settings
        with saying_what_fails(self.path):
            # Writers that were killed leave hidden files.
            for file in list(self.path.rglob(".*")):
                if file.is_file():
                    file.unlink()
            write_table(self.path / REJECTS, ["path", "reason"], self.rejects)
            if self.journal.kept:
                self.journal.write(self.path / JOURNAL)
            else:
                (self.path / JOURNAL).unlink()
            self.journal.close()
            counted = {**counts, "rejects": len(self.rejects)}
            described = {**(extra or {}), FILES: entries_of(self.path)}
            write_run_file(self.path, folder.plan, settings, self.started, counted, described)
            # The Make target must be the newest file.
            touch(self.path / folder.marker)
            swap(self.path, folder.out)
            for former in self.journal.former:
                if former.folder != folder.out:
                    remove(former.folder)
        if self.rejects and not wanted:
            text = f"{len(self.rejects)} rejected, with reasons in {folder.shown / REJECTS}"
            if settings.strict:
                raise StrictError(text)
            settings.report.warn(text)


class StepFolder:
    """The output folder of one step; `marker` is the file that shows that it is complete, and is written last.

    With `replaced` false it is the folder of a run, whose folds are written one by one, so that inputs may be in it.
    """

    def __init__(
        self, out: Path | None, plan: Plan, settings: Settings, marker: str = MANIFEST, *, replaced: bool = True
    ) -> None:
        if out is None:
            raise UsageError(f"`cxrtool {plan.command}` writes a folder and needs -o DIR", "add -o and a folder's name")
        # The target of a symbolic link is replaced; the link stays.
        self.out = Path(os.path.realpath(out))
        self.shown = Path(out)
        if self.out in (Path.cwd(), *Path.cwd().parents) or os.path.ismount(self.out):
            what = "a mount point" if os.path.ismount(self.out) else "the working directory or one above it"
            raise TakenError(
                f"-o {out}: expected a folder that can be replaced, found {what}",
                f"choose a folder inside it: -o {Path(out) / plan.command}",
            )
        self.plan, self.settings, self.marker, self.replaced = plan, settings, marker, replaced
        self.share = Share.of(settings)
        self.digest = plan.digest(settings)

    def needs_work(self, folds: Iterable[str] = ()) -> bool:
        """Whether the step has to run; refuses a folder that was not made by this command.

        `folds` are the folders of a run that have to be in it. When nothing has changed, `manifest.csv` is touched if
        an input is newer, so that Make converges.
        """
        state = self._state()
        report = self.settings.report
        if state == "current" and (lost := [name for name in folds if not (self.out / name).is_dir()]):
            report.say(f"{self.shown}: {lost[0]} is no longer there")
            state = "stale"
        if state == "current" and not self.settings.force:
            marker = self.out / self.marker
            if marker.stat().st_mtime < self.plan.inputs.newest and not self.settings.dry_run:
                # In a read-only folder, Make only runs the command again.
                with contextlib.suppress(PermissionError):
                    touch(marker)
            if not self.settings.dry_run:
                self._remove_leftovers()
            report.say(f"{self.shown}: up to date, nothing to do")
            return False
        if self.settings.dry_run:
            why = {"absent": "it is not there yet", "stale": "inputs or options have changed", "current": "--force"}
            report.say(f"would write {self.shown}: {why[state]}")
            return False
        return True

    def _state(self) -> str:
        if not self.out.exists() or (self.out.is_dir() and not any(self.out.iterdir())):
            return "absent"
        made = read_run_file(self.out) if self.out.is_dir() else None
        if made is None or made.get("command") != self.plan.command:
            who = f"`cxrtool {made['command']}`" if made and "command" in made else "something else"
            raise TakenError(
                f"-o {self.shown}: expected a new folder or one that `cxrtool {self.plan.command}` made, "
                f"found one made by {who}",
                "choose another -o, or remove the folder",
            )
        if self.replaced:
            self._check_inputs_outside()
        whole = (self.out / self.marker).exists()
        if not whole or made.get("digest") != self.digest:
            return "stale"
        if changed := altered(self.out):
            self.settings.report.say(f"{self.shown}: {changed} was changed after it was written")
            return "stale"
        return "current"

    def _check_inputs_outside(self) -> None:
        inside = str(self.out) + os.sep
        for folder in sorted(self.plan.inputs.folders):
            if (os.path.realpath(folder) + os.sep).startswith(inside):
                raise TakenError(
                    f"-o {self.shown}: expected a folder without the inputs, which it would replace, found that some "
                    f"are in {folder}",
                    other_name(self.shown),
                )

    @contextlib.contextmanager
    def build(self) -> Iterator[Build]:
        """Open a temporary folder, or the one of an interrupted run of the same command.

        Raises:
            OutputError: Another process has it open; or, where all is put together, one of the shares.
        """
        parent, name, share = self.out.parent, self.out.name, self.share
        mark = f".{self.digest[:12]}"
        partial = share.aside(self.out, mark) if share else parent / f".{name}{mark}.partial"
        with saying_what_fails(self.out):
            parent.mkdir(parents=True, exist_ok=True)
            lock = share.lock(self.out) if share else _lock_of(self.out)
            with locked(lock, wait=False), held(self.out, [] if share else self._leftovers()):
                remove_temporaries(parent)
                # Beside a share others are at work.
                for leftover in [] if share else self._leftovers():
                    if leftover.suffix == ".old" and not self.out.exists():
                        # Killed between two renames: the former output stays until it is replaced.
                        leftover.rename(self.out)
                    elif leftover.suffix == ".old" or self.settings.force or _has_links(leftover):
                        # A step makes no links: somebody else did, and writing would follow them.
                        remove(leftover)
                former = [] if self.settings.force else self._former(partial)
                resumed = partial.exists()
                partial.mkdir(exist_ok=True)
                build = Build(self, partial, Journal(partial / JOURNAL, former))
                if resumed and build.journal.done:
                    self.settings.report.say(f"{self.shown}: going on where it stopped, {len(build.journal.done)} done")
                try:
                    with confined_to(partial):
                        yield build
                finally:
                    build.journal.close()
                    files = (path for path in partial.rglob("[!.]*") if path.is_file())
                    if partial.exists() and not any(file.name != JOURNAL or file.stat().st_size for file in files):
                        shutil.rmtree(partial)

    def _former(self, partial: Path) -> list[Former]:
        """The output that is replaced, and unfinished ones of other inputs or options, as far as they have journals."""
        made = read_run_file(self.out) or {}
        found = [Former.of(self.out, made.get(FILES, {})) if made.get("command") == self.plan.command else None]
        for leftover in self._leftovers():
            if leftover != partial and leftover.suffix != ".old":
                # What was put aside has no other use.
                moved = not self.share and share_of(leftover) is not None
                found.append(Former.of(leftover, None, moved=moved))
                if found[-1] is None and not self.share:
                    remove(leftover)
        return [former for former in found if former]

    def _leftovers(self) -> list[Path]:
        """What killed processes left beside the output; only who has the lock may remove it."""
        # The whole name is matched: another process may be building `run.v2` beside `run`.
        name = re.compile(
            re.escape(f".{self.out.name}.") + r"([0-9a-f]{12}\.([0-9]+of[0-9]+\.)?partial|([0-9]+\.)?old)"
        )
        return [Path(entry.path) for entry in os.scandir(self.out.parent) if name.fullmatch(entry.name)]

    def _remove_leftovers(self) -> None:
        """Remove them, locks and temporaries where the output is complete, unless another process is at work."""
        remove_temporaries(self.out, self.out.parent)
        name = re.compile(re.escape(f".{self.out.name}.") + r"(\w+\.)?lock")
        with contextlib.suppress(OSError):
            locks = [Path(entry.path) for entry in os.scandir(self.out.parent) if name.fullmatch(entry.name)]
            found = self._leftovers()
            for lock in locks or ([_lock_of(self.out)] if found else []):
                with contextlib.suppress(OutputError), locked(lock, wait=False):
                    if lock == _lock_of(self.out):
                        for leftover in found:
                            with contextlib.suppress(OutputError), held(self.out, [leftover]):
                                remove(leftover)


def other_name(out: Path) -> str:
    """The hint to choose another output.

    >>> other_name(Path("a/splits.csv"))
    'choose another name, such as -o a/splits-new.csv'
    """
    return f"choose another name, such as -o {out.parent / f'{out.stem}-new{out.suffix}'}"


def touch(path: Path) -> None:
    """Give a file the newest modification time.

    The time is read here, because the clock of the file system may be behind the time of the previous file.
    """
    now = time.time_ns()
    os.utime(path, ns=(now, now))


def swap(built: Path, out: Path) -> None:
    """Rename a finished folder; an old folder of that name is removed afterwards."""
    old = out.parent / f".{out.name}.old"
    with stopping.Held():
        if out.exists():
            remove(old)
            out.rename(old)
        built.rename(out)
        stopping.unfinished.add(str(old))
    handle = os.open(out.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    remove(old)
    stopping.unfinished.discard(str(old))


def _has_links(folder: Path) -> bool:
    return any(path.is_symlink() for path in folder.rglob("*"))


def _lock_of(out: Path) -> Path:
    return out.parent / f".{out.name}.lock"


def write_run_file(
    target: Path,
    plan: Plan,
    settings: Settings,
    started: float,
    counts: Mapping[str, int],
    extra: Mapping[str, Any] | None = None,
    name: str = RUN_FILE,
) -> None:
    """Write `run.json`, or a file of another `name`: the command, its inputs, and its options with their origins."""
    content = {
        "schema": SCHEMA,
        "command": plan.command,
        "argv": list(settings.argv),
        "options": {
            name: {"value": value, "origin": settings.origins.get(name, "default")}
            for name, value in plan.options.items()
        },
        "seed": settings.seed,
        "threads": settings.threads,
        "digest": plan.digest(settings),
        "inputs": {"digest": plan.inputs.digest, "files": plan.inputs.count},
        "versions": plan.versions(),
        "chain": without_paths(plan.chain),
        "counts": dict(counts),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 2),
        "machine": {"system": platform.platform(), "python": platform.python_version(), "processors": os.cpu_count()},
        **(extra or {}),
    }
    _write_json(target / name, content)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    # As `json.dumps` would write it, which takes four times as much memory.
    with atomic_path(path) as temporary, temporary.open("w", encoding="ascii") as file:
        file.writelines(json.JSONEncoder(indent=1, default=str).iterencode(content))
        file.write("\n")


def record(folder: Path, contents: Mapping[str, str | bytes]) -> None:
    """Write the digests of files into the `run.json` of a run, before the files: its folder is not made at once."""
    made = read_run_file(folder)
    if made is None:
        return
    files = {**made.get(FILES, {}), **{name: entry_of(content) for name, content in contents.items()}}
    if files != made.get(FILES):
        _write_json(folder / RUN_FILE, {**made, FILES: files})


def forget(folder: Path, name: str) -> None:
    """Remove the digest of a file from the `run.json` of its folder, before the file itself is removed."""
    made = read_run_file(folder) or {}
    if name in made.get(FILES, {}):
        files = {key: value for key, value in made[FILES].items() if key != name}
        _write_json(folder / RUN_FILE, {**made, FILES: files})


def read_run_file(folder: Path) -> dict[str, Any] | None:
    """The content of a folder's `run.json`, or None where there is none that cxrtool wrote."""
    try:
        content = load_json(folder / RUN_FILE)
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and "command" in content else None


def without_paths(chain: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A chain without paths, as it is written and compared."""
    return [{name: value for name, value in entry.items() if name != AT} for entry in chain]
