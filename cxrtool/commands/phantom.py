"""Draw chest radiographs from anatomy, with the truth about each.

Writes a folder laid out as a real set is: images/CLASS/ in the kinds of files that the sources write, masks/,
metadata.csv; and, as no real set can, truth/ and truth.csv with the place, kind and extent of every lesion. Unless
a shortcut is planted, nothing but the lesions tells the class. The same seed gives the same bytes.

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

from cxrtool.data.tables.manifest import Row
from cxrtool.errors import CxrtoolError, InputError, UsageError
from cxrtool.flow.folder import Build, Inputs, Plan, StepFolder, read_run_file
from cxrtool.flow.parallel import map_items
from cxrtool.flow.settings import RUNNING, Settings
from cxrtool.options import Options, option

if TYPE_CHECKING:
    from cxrtool.phantom.cohort import Cohort, Shot
    from cxrtool.phantom.files import Header
    from cxrtool.phantom.tables import Rows

VERSION = 1
"""Raised when the same options would give other files."""

METADATA = "metadata.csv"
SIZES = range(64, 4097)
ALL, MASKS, NONE = "all", "masks", "none"
TRUTHS = (ALL, MASKS, NONE)
"""How much of the truth is drawn."""


@dataclass(frozen=True)
class PhantomOptions(Options):
    """The options of `phantom`; lists are separated by commas."""

    SHARED: ClassVar[tuple[str, ...]] = ("out", "seed", "workers", *RUNNING)

    count: int = option("Radiographs; some patients have two or three.", 100, minimum=1)
    size: int = option("Side in pixels, more or less, as the sources differ.", 256, minimum=SIZES[0], maximum=SIZES[-1])
    classes: str = option(
        "Among normal, pathological, covid, viral and bacterial; equal shares.",
        "normal,pathological,covid",
        metavar="NAMES",
    )
    sources: str | None = option(
        "Where they come from: look, size, letters and kind of file; county=4,archive=1 gives them weights.",
        None,
        metavar="NAMES",
        shown="all there are",
    )
    children: float = option("Share of patients under 13; the others are adults.", 0.2, minimum=0, maximum=1)
    plant: str | None = option(
        "Shortcuts to plant: marker, border, size, source or age tells the class; duplicate or "
        "near-duplicate patients return under another id in another subset.",
        None,
        metavar="NAMES",
        shown="none",
    )
    plant_strength: float = option("Share of images that follow what is planted.", 1.0, minimum=0, maximum=1)
    truth: str = option(
        "Pictures of the truth: {choices}. All are each lung, heart, lesions and no ribs; masks are both lungs.",
        ALL,
        choices=TRUTHS,
    )


def run(options: PhantomOptions, settings: Settings) -> None:
    """Draw."""
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
        # What made a folder has passed: so a run with nothing to do need not load what knows the names.
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
        What the tables tell of it, and how many bytes its files have, by which a resumed run knows them as whole.
    """
    from cxrtool.data.reading.images import write_png
    from cxrtool.phantom import files, tables
    from cxrtool.phantom.draw import draw
    from cxrtool.phantom.sources import FILES

    drawing = draw(shot.subject, shot.source, size, ribless=truth == ALL)
    kind = files.KINDS[shot.source.file]
    names = {"path": folder / "images" / shot.subject.label / f"{shot.image_id}.{FILES[shot.source.file]}"}
    if truth != NONE:
        names["mask"] = folder / "masks" / f"{shot.image_id}.png"
    if truth == ALL:
        names |= {name: folder / "truth" / f"{shot.image_id}_{name}.png" for name in tables.TRUTHS}
    for place in {path.parent for path in names.values()}:
        place.mkdir(parents=True, exist_ok=True)
    masks = {
        "mask": drawing.right_lung | drawing.left_lung, "right": drawing.right_lung, "left": drawing.left_lung,
        "heart": drawing.heart, "lesions": drawing.lesions,
    }  # fmt: skip
    written = kind.write(names["path"], drawing.image, _header(shot))
    written += sum(write_png(names[name], mask, mask=True) for name, mask in masks.items() if name in names)
    if "ribless" in names:
        written += write_png(names["ribless"], files.quantise(drawing.ribless, kind.bits))
    return tables.describe(shot, drawing, names, folder), written


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
        options.count, settings.seed, _names(options.classes), sources, options.children, _names(options.plant),
        options.plant_strength,
    )  # fmt: skip


def _weights(text: str) -> tuple[tuple[str, float], ...]:
    """Names, each with a weight behind an equals sign, or with 1."""
    result = []
    for entry in _names(text):
        name, _, weight = entry.partition("=")
        try:
            result.append((name, float(weight or 1)))
        except ValueError:
            raise UsageError(f"--sources: expected NAME or NAME=WEIGHT, found '{entry}'") from None
    return tuple(result)


def _draw_all(options: PhantomOptions, cohort: Cohort, build: Build, settings: Settings) -> Summary:
    """Draw what is not drawn yet, write the tables, and count what there is."""
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
                # Without it the same command would make another set.
                raise CxrtoolError(
                    f"{shot.image_id} cannot be drawn: {result.message.removeprefix('cannot be decoded: ')}",
                    "the same command goes on from here; CXRTOOL_DEBUG=1 shows where it fails",
                )
            rows.add(*result)
            advance(1)


@dataclass
class Summary:
    """What a set holds, counted row by row."""

    images: int = 0
    patients: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    severities: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    plants: Counter[str] = field(default_factory=Counter)
    _last: str = ""

    def add(self, row: Row) -> None:
        """Count a row; those of a patient stand together."""
        self.images += 1
        self.patients += row["patient_id"] != self._last
        self._last = row["patient_id"]
        self.labels[row["label"]] += 1
        self.severities.update(filter(None, [row["severity"]]))
        self.sources[row["source"]] += 1
        self.plants.update(filter(None, row["planted"].split(";")))

    def lines(self) -> list[str]:
        """The set in words."""
        from cxrtool.phantom.illness import SEVERITIES
        from cxrtool.phantom.plants import PLANTS
        from cxrtool.phantom.sources import SOURCES
        from cxrtool.phantom.subject import LABELS

        text = [f"{self.images} images of {self.patients} patients: {_counted(self.labels, LABELS)}"]
        if self.severities:
            text.append(f"  covid: {_counted(self.severities, SEVERITIES)}")
        text.append(f"  sources: {_counted(self.sources, SOURCES)}")
        return text + ([f"  planted: {_counted(self.plants, PLANTS)}"] if self.plants else [])


def _counted(counts: Mapping[str, int], order: Iterable[str]) -> str:
    return ", ".join(f"{name} {counts[name]}" for name in order if counts[name])
