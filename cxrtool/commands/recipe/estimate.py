"""The work of a recipe, step by step: what is trained, what images go through, and a rough time and size of it.

The steps come from the chain itself. Of trainings a few steps are timed. Commands that need no trained model are called
on two small samples of the images, and the difference is their slope. Those that need one have the slopes of `AFTER`,
which were measured once.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cxrtool.commands.recipe.system import Call, Recipe
from cxrtool.data.files import scratch_folder
from cxrtool.data.tables.manifest import Row as ManifestRow
from cxrtool.data.tables.manifest import write_table
from cxrtool.errors import UsageError, count_of
from cxrtool.flow.settings import Settings, Silent
from cxrtool.options import declared, flag_of
from cxrtool.training.options import TrainingOptions
from cxrtool.training.presets import GENERATORS, PRESETS, SWEEP

if TYPE_CHECKING:
    from cxrtool.training.fitting import Design

STEPS = 4
"""Training steps of each network that are timed; the first does not count."""

SAMPLES = (12, 60)
"""Images on which a command is called; the time of starting is in both, and is not in their difference."""

TOO_SHORT = "too short to time"

MANY = 1_000_000
"""Images of the second table."""

GPUS = (1, 8)


@dataclass(frozen=True)
class Row:
    """One command line of the chain.

    Attributes:
        step: Its name.
        what: The network, or the command.
        runs: How often it is done: folds, repeats and networks of a search.
        unit: What `seconds` is the time of.
        seconds: Measured; None where it is not known, for a `reason`.
        epochs: Passes over the images.
        share: Images of a pass, per listed image.
        batch: Images in a unit.
        bytes: Written per listed image.
        trains: Whether it computes on the GPU, each run by itself.
    """

    step: str
    what: str
    runs: int = 1
    unit: str = "image"
    seconds: float | None = None
    epochs: int = 1
    share: float = 1.0
    batch: int = 1
    bytes: float = 0.0
    trains: bool = False
    reason: str = ""

    def units(self, images: int) -> int:
        """Units of one run."""
        return self.epochs * math.ceil(images * self.share / self.batch)

    def hours(self, images: int, devices: int = 1) -> float | None:
        """The time of all runs, which share the devices; at least that of one run."""
        if self.seconds is None:
            return None
        return math.ceil(self.runs / devices) * self.units(images) * self.seconds / 3600


@dataclass(frozen=True)
class Estimate:
    """The work of a recipe.

    Attributes:
        images: Listed in DATA, whether they can be read or not.
        classes: Different labels in DATA.
        device: Where it was measured.
        on_gpu: Whether that is a GPU.
        rows: One for each command line of the chain, in order.
        remarks: What differs from the chain as it will be done.
    """

    images: int
    classes: int
    device: str
    on_gpu: bool
    rows: list[Row]
    remarks: list[str] = field(default_factory=list)

    def sentences(self) -> tuple[str, str]:
        """The number of trainings, and how reliable the times are."""
        trainings = sum(row.runs for row in self.rows if row.trains)
        few, some = SAMPLES
        return (
            f"{count_of(self.images, 'image')} of {count_of(self.classes, 'class', 'classes')}; "
            f"{count_of(len(self.rows), 'command')}, {count_of(trainings, 'training')}",
            f"A rough estimate: {STEPS - 1} training steps of each network, and the other commands on {few} and {some} "
            f"of the images, were timed here ({self.device}) and multiplied; other work on this machine affects the "
            f"result. {', '.join(AFTER)} need trained models: their slopes were measured once, on one core of another "
            "machine.\nDecoding and predictions of trainings are not counted.\n"
            + "".join(f"{remark}\n" for remark in self.remarks),
        )

    def table(self) -> tuple[list[str], list[list[str]]]:
        """One row for each command line, and their sum."""
        rows = [
            [
                row.step,
                row.what,
                str(row.runs),
                f"{row.units(self.images):,}",
                row.unit,
                row.reason if row.seconds is None else f"{row.seconds:.3g}",
                _duration(row.hours(self.images)),
                _size(row.bytes * self.images),
            ]
            for row in self.rows
        ]
        hours = sum(row.hours(self.images) or 0.0 for row in self.rows)
        total = ["all with a time", "", str(sum(row.runs for row in self.rows)), "", "", "", _duration(hours)]
        columns = ["step", "what", "runs", "units each", "unit", "seconds per unit", "time", "disk"]
        return columns, [*rows, [*total, _size(sum(row.bytes for row in self.rows) * self.images)]]

    def extrapolated(self) -> tuple[list[str], list[list[str]], str]:
        """Time and disk for a million images with one GPU and with several, from the same slopes; and a title.

        On a machine without a GPU the times of trainings stay open: no ratio of processors to GPUs holds for all
        networks.
        """
        rows = []
        sums = [0.0 for _ in GPUS]
        for row in self.rows:
            hours = [
                None if row.trains and not self.on_gpu else row.hours(MANY, count if row.trains else 1)
                for count in GPUS
            ]
            sums = [before + (more or 0.0) for before, more in zip(sums, hours, strict=True)]
            held = row.bytes * MANY if row.trains else 0.0
            rows.append([row.step, row.what, *map(_duration, hours), _size(row.bytes * MANY), _size(held)])
        disk = sum(row.bytes for row in self.rows) * MANY
        held = max((row.bytes for row in self.rows if row.trains), default=0.0) * MANY
        rows.append(["all with a time", "", *map(_duration, sums), _size(disk), _size(held)])
        columns = ["step", "what", *(f"time, {count_of(count, 'GPU')}" for count in GPUS), "disk", "memory"]
        where = (
            ""
            if self.on_gpu
            else "; times of trainings are open: there is no GPU here, `recipe --estimate` measures on one"
        )
        return (
            columns,
            rows,
            (
                f"{MANY:,} images, extrapolated from the slopes above{where}; memory: decoded images of a training, "
                "which stay on the disk where they do not fit"
            ),
        )


def estimate(system: Recipe, settings: Settings) -> Estimate:
    """Count what a recipe does with its data, and measure what can be measured before anything is trained.

    Raises:
        InputError: DATA cannot be listed.
        UsageError: No such recipe, variable or network.
    """
    from cxrtool.training.device import choose_device

    listed, classes = _list(system)
    device = choose_device(settings.device)
    calls = system.calls()
    # Before the samples, which take longer: a wrong value is found at once.
    designs = {call.name: _design(call, calls, classes, settings) for call in calls if call.command == "train"}
    rows, known = {}, {}
    with settings.report.progress("measuring", len(designs)) as advance:
        for name, row in designs.items():
            # Equal trainings on other images take the same time a step.
            if (key := repr(row[1])) not in known:
                known[key] = seconds_a_step(row[1])
                settings.report.note(f"{name}: {known[key]:.3f} s per step")
            rows[name] = replace(row[0], seconds=known[key])
            advance(1)
    slopes, remarks = measure_slopes(system, listed, settings)
    shown = f"cpu, {settings.threads} threads" if device.type == "cpu" else str(device)
    found = [
        rows[call.name]
        if call.name in rows
        else _after(call, calls, rows)
        if call.command in AFTER
        else _other(call, calls, slopes[call.name])
        for call in calls
    ]
    if any("--within" in call.options for call in calls):
        remarks.append("Divisions within another (--within) have fewer training images than are counted.")
    return Estimate(len(listed), classes, shown, device.type == "cuda", found, remarks)


def _list(system: Recipe) -> tuple[list[ManifestRow], int]:
    """The images of DATA, and the number of their classes."""
    from cxrtool.data.datasets.listing import list_images
    from cxrtool.data.datasets.record import Request

    records = list_images([Path(system.value("DATA"))], None, Request(), None).records
    rows = [{**record.columns, "path": str(record.path.absolute())} for record in records]
    return rows, max(2, len({row.get("label", "") for row in rows} - {""}))


def _whole(flag: str, text: str) -> int:
    if not text.isdigit() or not int(text):
        raise UsageError(f"{flag}: expected a whole number above 0, found '{text}'")
    return int(text)


class Division(NamedTuple):
    """A splits file of the chain.

    Attributes:
        runs: The folds of all repeats.
        share: Of the images that each trains on.
        tested: Images that all of them test, per image.
    """

    runs: int
    share: float
    tested: float


def division(calls: Sequence[Call], splits: str) -> Division:
    """How a splits file of the chain divides the images."""
    options = next((call.options for call in calls if call.command == "split" and call.options["-o"] == splits), {})
    if "--within" in options:
        return division(calls, options["--within"])
    repeats = _whole("--repeats", options.get("--repeats", "1"))
    if "--holdout" in options:
        parts = [float(part) for part in options["--holdout"].split("/")]
        return Division(repeats, parts[0] / sum(parts), repeats * parts[-1] / sum(parts))
    folds = _whole("--folds", options.get("--folds", "1"))
    return Division(folds * repeats, (1 - 1 / folds) * (1 - float(options.get("--validation", "0"))), repeats)


def _design(call: Call, calls: Sequence[Call], classes: int, settings: Settings) -> tuple[Row, Design]:
    """A training of the chain, without its time."""
    from cxrtool.flow.fold_training import make_design
    from cxrtool.models.registry import check_name, native_size, network_kernels

    given = call.options
    options = TrainingOptions.of(**{**_typed(given), "weights": "none"})
    check_name(options.model)
    size = options.size or native_size(options.model)
    # The values of the weights do not change the time of a step, so none are downloaded; as `train` does, a random
    # backbone is never frozen.
    frozen = options.freeze and given.get("--weights") != "none"
    kernels = network_kernels(options.model, options.kernels)
    options = replace(options, epochs=1, size=size, freeze=frozen, kernels=kernels)
    runs, share, _ = division(calls, given["--splits"])
    # Each image becomes a twin of each generator, in colour, and each class one of each.
    copies, colours = (classes, 3) if "--transform" in given else (1, 1)
    design = make_design(options, classes * copies, settings, 0)
    row = Row(
        call.name,
        options.model,
        runs * _whole("--budget", given.get("--budget", "1")),
        f"step of {count_of(options.batch_size, 'image')}",
        epochs=_epochs(given, PRESETS.get(given.get("--preset", ""), {})),
        share=share * copies,
        batch=options.batch_size,
        bytes=float(copies * colours * size * size),
        trains=True,
    )
    return row, design


def _epochs(given: Mapping[str, str], otherwise: Mapping[str, Any]) -> int:
    default = otherwise.get("epochs", TrainingOptions.epochs)
    return _whole("--epochs", given.get("--epochs", str(default)))


def _typed(given: Mapping[str, str]) -> dict[str, Any]:
    """The options of a training among those of a command line, as values."""
    found: dict[str, Any] = {}
    for name, (entry, declaration) in declared(TrainingOptions).items():
        for flag in declaration.flags or (flag_of(name),):
            yes, _, no = flag.partition("/")
            if yes in given or no in given:
                text, kind = given.get(yes, ""), str(entry.type)
                if kind.startswith("int"):
                    found[name] = _whole(yes, text)
                elif kind.startswith("bool"):
                    found[name] = yes in given
                else:
                    found[name] = float(text) if kind.startswith("float") else text
    return found


@dataclass(frozen=True)
class Slope:
    """What a command took for each image of a sample, or why that is not known."""

    seconds: float | None = None
    bytes: float = 0.0
    reason: str = ""


AFTER = {
    "audit": Slope(0.056, 1.54e6),
    "compare": Slope(0.00013, 18),
    "evaluate": Slope(0.0012, 35),
    "explain": Slope(0.0096, 1.65e6),
    "fuse": Slope(0.000013, 33),
    "report": Slope(0.0013),
}
"""Of commands that need trained models, the slope for each image, or for each image that a run tests; that of `explain`
is without its passes through the network. Processor time of one thread (Xeon, AVX-512) in November 2026: `audit` and
`explain` between 40 and 100 phantoms of 512 pixels, the others between 2,000 and 15,000 patients with one row each in a
run; from 20,000 on they take less."""


def _after(call: Call, calls: Sequence[Call], trained: Mapping[str, Row]) -> Row:
    """A command line that needs trained models."""
    slope = AFTER[call.command]
    row = Row(call.name, call.command, unit="image tested", seconds=slope.seconds, bytes=slope.bytes)
    if call.command == "audit":
        return replace(row, unit="image")
    runs = _runs_of(call, calls)
    if call.command == "explain":
        # A map takes a pass forward and one back, as in a step.
        step = trained[runs[0].name]
        row = replace(row, seconds=(slope.seconds or 0.0) + (step.seconds or 0.0) / step.batch)
    return replace(row, share=sum(division(calls, run.options["--splits"]).tested for run in runs))


def _runs_of(call: Call, calls: Sequence[Call]) -> list[Call]:
    """The trainings whose predictions a call reads; of those that `fuse` joins, the first: they share their images."""
    makers = [other for other in calls if other.command in ("train", "fit", "fuse") and other != call]
    made = {other.options["-o"]: other for other in makers}
    read = dict.fromkeys(word.rpartition("=")[2] for word in call.words)
    found = [made[path] for path in read if path in made]
    return [_runs_of(other, calls)[0] if other.command == "fuse" else other for other in found]


def _other(call: Call, calls: Sequence[Call], slope: Slope) -> Row:
    """A command line that is no training of `train`."""
    row = Row(call.name, call.command, seconds=slope.seconds, bytes=slope.bytes, reason=slope.reason)
    if call.command != "fit":
        return row
    given = call.options
    runs, share, _ = division(calls, given["--splits"])
    weights = given.get("--class-loss-weight", "")
    tried = len(SWEEP) if weights == "sweep" else weights.count(",") + 1
    size = _whole("--size", given.get("--size", str(GENERATORS["size"])))
    return replace(
        row,
        what=" ".join(call.words[:2]),
        runs=runs * tried,
        unit="image of an epoch",
        epochs=_epochs(given, GENERATORS),
        share=share,
        # The sample was fitted once, in its own division.
        seconds=None if slope.seconds is None else slope.seconds / SAMPLE_SHARE,
        bytes=float(size * size),
        trains=True,
    )


SAMPLE = {"FOLDS": "2", "REPEATS": "1", "EPOCHS": "1", "WEIGHTS": "none"}
"""Variables of the samples, where a recipe has them set or empty alike; two folds need the fewest patients."""

SAMPLE_SHARE = 0.45
"""The share of a sample on which generators are fitted: half, without a tenth for validation."""


def measure_slopes(
    system: Recipe, listed: Sequence[ManifestRow], settings: Settings
) -> tuple[dict[str, Slope], list[str]]:
    """Call the commands that need no trained model on two samples of the images.

    Returns:
        By the name of each call that is no `train`, its slope; and remarks on what was changed.
    """
    few, some = SAMPLES
    names = [call.name for call in system.calls() if call.command != "train"]
    if len(listed) < some:
        return dict.fromkeys(names, Slope(reason=f"not timed: fewer than {some} images")), []
    values = {
        name: text for name, text in SAMPLE.items() if name != "FOLDS" or (system.has(name) and system.value(name))
    }
    remarks = []
    if system.has("PERCEPTUAL") and system.value("PERCEPTUAL") == "imagenet":
        from cxrtool.models.pretrained import published

        known = published("vgg16")
        if known is None or known.path is None:
            values["PERCEPTUAL"] = "none"
            remarks.append(
                "Generators were timed without their perceptual term, whose weights are not on this machine."
            )
    # The first time, libraries are loaded, which takes longer than the work.
    found = [_call_all(system, _spread(listed, count), values, settings) for count in (few, few, some)][1:]
    slopes = {}
    for name in names:
        first, second = (one.get(name) for one in found)
        if first is None or second is None:
            slopes[name] = Slope(reason="after trainings")
        elif first.reason or second.reason:
            slopes[name] = first if first.reason else second
        else:
            seconds = ((second.seconds or 0.0) - (first.seconds or 0.0)) / (some - few)
            size = max(0.0, second.bytes - first.bytes) / (some - few)
            slopes[name] = Slope(seconds, size) if seconds > 0 else Slope(bytes=size, reason=TOO_SHORT)
    return slopes, remarks


def _spread(listed: Sequence[ManifestRow], count: int) -> list[ManifestRow]:
    """So many of the images, of each class in turn."""
    by_label: dict[str, list[ManifestRow]] = {}
    for row in listed:
        by_label.setdefault(row.get("label", ""), []).append(row)
    turns = itertools.chain.from_iterable(itertools.zip_longest(*by_label.values()))
    return list(itertools.islice((row for row in turns if row is not None), count))


def _call_all(
    system: Recipe, rows: Sequence[ManifestRow], values: Mapping[str, str], settings: Settings
) -> dict[str, Slope]:
    """Call what can be called on a sample: by name its whole time and size, or the reason why it failed."""
    found: dict[str, Slope] = {}
    with scratch_folder("recipe") as folder:
        table, out = folder / "sample.csv", folder / "out"
        columns = list(dict.fromkeys(name for row in rows for name in row if name != "original"))
        write_table(table, columns, [{name: row.get(name, "") for name in columns} for row in rows])
        sample = system.with_values({**values, "DATA": str(table), "DATASET": "csv", "OUT": str(out)})
        made: set[str] = set()
        failed: set[str] = set()
        for call in sample.calls():
            if call.needs & failed:
                failed.add(call.makes)
                found[call.name] = Slope(reason="not timed: its input is missing")
            if call.command == "train" or not call.needs <= made:
                continue
            line = [*call.words, "--quiet", *(["--only", "r0f0"] if call.command == "fit" else [])]
            start = time.monotonic()
            code = settings.call(line, Silent())
            seconds = time.monotonic() - start
            if code:
                failed.add(call.makes)
                found[call.name] = Slope(reason=f"not timed: code {code}")
                continue
            made.add(call.makes)
            found[call.name] = Slope(seconds, _bytes(Path(call.options["-o"])))
    return found


def _bytes(path: Path) -> float:
    files = [path] if path.is_file() else path.rglob("*")
    return float(sum(file.stat().st_size for file in files if file.is_file()))


def seconds_a_step(design: Design) -> float:
    """Seconds of one training step on random images: the fastest of several after the first."""
    import numpy as np
    import torch

    from cxrtool.training.fitting import fit_fold
    from cxrtool.training.store import Store

    side, count = design.architecture.size, STEPS * design.recipe.batch_size
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, side, side), np.uint8)
    labels = np.arange(count) % design.architecture.classes
    times: list[float] = []

    def record_time() -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.monotonic())

    no_images = np.empty(0, np.int64)
    with scratch_folder("recipe") as folder:
        fit_fold(
            replace(design, recipe=replace(design.recipe, epochs=1)),
            Store(images, [""] * count),
            [str(i) for i in range(count)],
            labels,
            np.arange(count),
            no_images,
            no_images,
            folder,
            save_every=1e9,
            stop=record_time,
        )
    return min(after - before for before, after in itertools.pairwise(times))


def _duration(hours: float | None) -> str:
    if hours is None:
        return "open"
    return f"{hours:,.1f} h" if hours >= 1 else f"{hours * 60:.0f} min" if hours * 60 >= 1 else "under a minute"


def _size(count: float) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB" if count else ""
