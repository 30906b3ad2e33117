"""Draw synthetic chest radiographs with ground truth.

Writes a folder with the layout of a real set: images/CLASS/ in the file formats of the sources, masks/,
metadata.csv; and also truth/ and truth.csv with the position, kind and extent of every lesion, which no real set has.
Unless a shortcut is planted, only the lesions depend on the class. The same seed gives the same bytes.

Example: cxrtool phantom --count 300 -o phantoms
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from cxrtool.data.confinement import check_inside
from cxrtool.data.file_names import METADATA
from cxrtool.data.files import saying_what_fails
from cxrtool.data.tables.manifest import Row
from cxrtool.errors import CxrtoolError, InputError, UsageError, count_of
from cxrtool.flow.folder import Build, Inputs, Plan, StepFolder, read_run_file
from cxrtool.flow.parallel import map_items
from cxrtool.flow.settings import RUNNING, Settings
from cxrtool.options import Options, option

if TYPE_CHECKING:
    from cxrtool.phantom.cohort import Cohort, Shot
    from cxrtool.phantom.files import Header
    from cxrtool.phantom.tables import Rows

VERSION = 1
"""Increased when the same options would give other files."""

SIZES = range(64, 4097)
ALL, MASKS, NONE = "all", "masks", "none"
TRUTHS = (ALL, MASKS, NONE)
"""How much of the ground truth is written."""


@dataclass(frozen=True)
class PhantomOptions(Options):
    """The options of `phantom`; lists are separated by commas."""

    SHARED: ClassVar[tuple[str, ...]] = ("out", "seed", "workers", *RUNNING)

    count: int = option("Number of radiographs; some patients have two or three.", 100, minimum=1)
    size: int = option("Approximate side in pixels; the sources differ.", 256, minimum=SIZES[0], maximum=SIZES[-1])
    classes: str = option(
        "Some of normal, pathological, covid, viral and bacterial, in equal shares.",
        "normal,pathological,covid",
        metavar="NAMES",
    )
    sources: str | None = option(
        "Simulated hospitals, each with its own appearance, size, letters and file format; county=4,archive=1 "
        "gives weights.",
        None,
        metavar="NAMES",
        shown="all",
    )
    children: float = option("Share of patients under 13; the others are adults.", 0.2, minimum=0, maximum=1)
    plant: str | None = option(
        "Shortcuts to plant: marker, border, size, source or age depends on the class; duplicate or near-duplicate "
        "patients are repeated with another id in another subset.",
        None,
        metavar="NAMES",
        shown="none",
    )
    plant_strength: float = option("Share of images that follow the planted shortcuts.", 1.0, minimum=0, maximum=1)
    truth: str = option(
        "Ground truth to write: {choices}. All is each lung, heart, lesions and the image without ribs; masks is a "
        "mask of both lungs.",
        ALL,
        choices=TRUTHS,
    )


def run(options: PhantomOptions, settings: Settings) -> None:
    """Draw phantoms."""
    phantom(options, settings)


def phantom(options: PhantomOptions, settings: Settings) -> int | None:
    """Draw the radiographs of a cohort into a folder that `cxrtool prepare` reads by its `metadata.csv`.

    Returns:
        The number of images, or None where there was nothing to do.

    Raises:
        UsageError: An option has a value that it cannot have.
        InputError: No output was named.
        OutputError: It cannot be written there.
    """
    folder = StepFolder(settings.out, _plan(options), settings, marker=METADATA)
    made = read_run_file(folder.out)
    if made is None or made.get("digest") != folder.digest:
        # The options of a finished folder are valid: a run with nothing to do need not import the modules of names.
        _check(options)
        _cohort(options, settings)
    if not folder.needs_work():
        return None
    with folder.build() as build:
        summary = _draw_all(options, _cohort(options, settings), build, settings)
        build.close(counts={"images": summary.images, "patients": summary.patients, **summary.labels})
    for line in summary.lines():
        settings.report.say(line)
    settings.report.say(f"next: cxrtool prepare {shlex.quote(str(folder.shown / METADATA))} -o prepared")
    return summary.images


def draw_one(shot: Shot, *, folder: Path, size: int, truth: str) -> tuple[Row, int]:
    """Draw one radiograph and write its files below `folder`; run in a worker process.

    Returns:
        Its row of the tables, and the total number of bytes of its files, so that a resumed run can check the files.
    """
    from cxrtool.data.reading.images import write_png
    from cxrtool.phantom import files, tables
    from cxrtool.phantom.draw import draw
    from cxrtool.phantom.sources import FILES

    drawing = draw(shot.subject, shot.source, size, ribless=truth == ALL)
    kind = files.KINDS[shot.source.file]
    paths = {"path": folder / "images" / shot.subject.label / f"{shot.image_id}.{FILES[shot.source.file]}"}
    if truth != NONE:
        paths["mask"] = folder / "masks" / f"{shot.image_id}.png"
    if truth == ALL:
        paths |= {name: folder / "truth" / f"{shot.image_id}_{name}.png" for name in tables.TRUTHS}
    masks = {
        "mask": drawing.right_lung | drawing.left_lung,
        "right": drawing.right_lung,
        "left": drawing.left_lung,
        "heart": drawing.heart,
        "lesions": drawing.lesions,
        "opacities": drawing.opacities,
    }
    with saying_what_fails(folder):
        for parent in {path.parent for path in paths.values()}:
            check_inside(parent)
            parent.mkdir(parents=True, exist_ok=True)
        written = kind.write(paths["path"], drawing.image, _header(shot))
        written += sum(write_png(paths[name], mask, mask=True) for name, mask in masks.items() if name in paths)
        if "ribless" in paths:
            written += write_png(paths["ribless"], files.quantise(drawing.ribless, kind.bits))
    return tables.describe(shot, drawing, paths, folder), written


def _header(shot: Shot) -> Header:
    from cxrtool.phantom.files import Header

    subject = shot.subject
    key = "-".join(map(str, (*subject.body, *subject.visit, *subject.exposure)))
    return Header(shot.written_id, subject.view, subject.age, subject.sex, key)


def _plan(options: PhantomOptions) -> Plan:
    return Plan(
        command="phantom",
        options={
            **options.identity(),
            "classes": ",".join(_names(options.classes)),
            "plant": ",".join(_names(options.plant)) or None,
            "version": VERSION,
        },
        inputs=Inputs.of(),
        libraries=("numpy", "opencv-python-headless", "pydicom", "scipy"),
        seeded=True,
    )


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


def _check(options: PhantomOptions) -> None:
    if options.size not in SIZES:
        raise UsageError(f"--size: expected a number from {SIZES[0]} to {SIZES[-1]}, found {options.size}")


def _cohort(options: PhantomOptions, settings: Settings) -> Cohort:
    from cxrtool.phantom.cohort import Cohort
    from cxrtool.phantom.sources import SOURCES

    sources = _weights(",".join(SOURCES) if options.sources is None else options.sources)
    return Cohort(
        count=options.count,
        seed=settings.seed,
        classes=_names(options.classes),
        sources=sources,
        children=options.children,
        plants=_names(options.plant),
        strength=options.plant_strength,
    )


def _weights(text: str) -> tuple[tuple[str, float], ...]:
    """Names, each with its weight after an equals sign; the default is 1."""
    result = []
    for entry in _names(text):
        name, _, weight = entry.partition("=")
        try:
            result.append((name, float(weight or 1)))
        except ValueError:
            raise UsageError(f"--sources: expected NAME or NAME=WEIGHT, found '{entry}'") from None
    return tuple(result)


def _draw_all(options: PhantomOptions, cohort: Cohort, build: Build, settings: Settings) -> Summary:
    """Draw the remaining radiographs, write the tables, and summarise the set."""
    from cxrtool.phantom.tables import Rows

    rows = Rows(build.path)
    try:
        if rows.done:
            settings.report.say(f"{build.folder.shown}: going on where it stopped, {rows.done} done")
        _draw_rest(options, cohort, rows, settings)
    finally:
        rows.close()
    rows.write_tables()
    summary = Summary()
    for row in rows:
        summary.add(row)
    return summary


def _draw_rest(options: PhantomOptions, cohort: Cohort, rows: Rows, settings: Settings) -> None:
    from cxrtool.phantom.cohort import draw_shots

    work = partial(draw_one, folder=rows.folder, size=options.size, truth=options.truth)
    workers = min(settings.workers, options.count - rows.done or 1)
    preload = ("cxrtool.phantom.draw", "cxrtool.phantom.files", "cxrtool.phantom.tables")
    with settings.report.progress("phantom", options.count) as advance:
        advance(rows.done)
        for shot, result in map_items(work, draw_shots(cohort, rows.done), workers=workers, preload=preload):
            if isinstance(result, InputError):
                # Skipping it would make another set than the same command elsewhere.
                raise CxrtoolError(
                    f"{shot.image_id} cannot be drawn: {result.message.removeprefix('cannot be decoded: ')}",
                    "the same command resumes from here; CXRTOOL_DEBUG=1 shows where it fails",
                )
            rows.add(*result)
            advance(1)


@dataclass
class Summary:
    """Counts of a set, row by row."""

    images: int = 0
    patients: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    severities: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    plants: Counter[str] = field(default_factory=Counter)
    _last: str = ""

    def add(self, row: Row) -> None:
        """Count a row; the rows of a patient are consecutive."""
        self.images += 1
        self.patients += row["patient_id"] != self._last
        self._last = row["patient_id"]
        self.labels[row["label"]] += 1
        self.severities.update(filter(None, [row["severity"]]))
        self.sources[row["source"]] += 1
        self.plants.update(filter(None, row["planted"].split(";")))

    def lines(self) -> list[str]:
        """The summary as lines of text."""
        from cxrtool.phantom.cohort import SEVERITIES
        from cxrtool.phantom.plants import PLANTS
        from cxrtool.phantom.sources import SOURCES
        from cxrtool.phantom.subject import LABELS

        text = [
            f"{count_of(self.images, 'image')} of {count_of(self.patients, 'patient')}: {_counted(self.labels, LABELS)}"
        ]
        if self.severities:
            text.append(f"  covid: {_counted(self.severities, SEVERITIES)}")
        text.append(f"  sources: {_counted(self.sources, SOURCES)}")
        return text + ([f"  planted: {_counted(self.plants, PLANTS)}"] if self.plants else [])


def _counted(counts: Mapping[str, int], order: Iterable[str]) -> str:
    return ", ".join(f"{name} {counts[name]}" for name in order if counts[name])
