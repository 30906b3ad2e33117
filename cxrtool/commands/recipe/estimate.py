"""The work of a recipe: images, trainings and epochs, and a rough time from a few training steps on this machine."""

from __future__ import annotations

import itertools
import math
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cxrtool.commands.recipe.system import Recipe
from cxrtool.data.files import scratch_folder
from cxrtool.errors import UsageError, count_of
from cxrtool.flow.settings import Settings
from cxrtool.training.options import TrainingOptions
from cxrtool.training.presets import PRESETS

if TYPE_CHECKING:
    from cxrtool.training.fitting import Design

STEPS = 4
"""Training steps of each network that are timed; the first does not count."""


@dataclass(frozen=True)
class Row:
    """One network.

    Attributes:
        trainings: How often it is trained.
        steps: Steps of one training.
        seconds: Time of one step, measured.
    """

    network: str
    trainings: int
    steps: int
    seconds: float

    @property
    def hours(self) -> float:
        """The time of all its trainings."""
        return self.trainings * self.steps * self.seconds / 3600


@dataclass(frozen=True)
class Estimate:
    """The work of a recipe.

    Attributes:
        images: Listed in DATA, whether they can be read or not.
        classes: Different labels in DATA.
        epochs: Epochs of a training.
        batch_size: Images per step.
        size: Side of the input in pixels.
        device: Where the steps were measured.
        rows: One per network.
        uncounted: What else is trained, in words.
    """

    images: int
    classes: int
    epochs: int
    batch_size: int
    size: int
    device: str
    rows: list[Row]
    uncounted: str = ""

    def sentences(self) -> tuple[str, str]:
        """The number of trainings, and how reliable the times are."""
        trainings = sum(row.trainings for row in self.rows)
        more = f"\n{self.uncounted}" if self.uncounted else ""
        return (
            f"{count_of(self.images, 'image')} of {count_of(self.classes, 'class', 'classes')}; "
            f"{trainings} trainings of {self.epochs} epochs at "
            f"{self.size} x {self.size} pixels",
            f"A rough estimate: {STEPS - 1} training steps of "
            f"{count_of(self.batch_size, 'image')} of each network were timed here "
            f"({self.device}) and multiplied; other work on this machine affects the result.\nDecoding, predictions, "
            f"the thumbnail and the tables are not counted. Another machine, or a GPU, takes another time.{more}",
        )

    def table(self) -> tuple[list[str], list[list[str]]]:
        """One row per network, and their sum."""
        rows = [
            [row.network, str(row.trainings), f"{row.steps:,}", f"{row.seconds:.3f}", _duration(row.hours)]
            for row in self.rows
        ]
        total = sum(row.hours for row in self.rows)
        return (
            ["network", "trainings", "steps each", "seconds per step", "time"],
            [*rows, ["all", str(sum(row.trainings for row in self.rows)), "", "", _duration(total)]],
        )


def estimate(system: Recipe, settings: Settings) -> Estimate:
    """Count the images of a recipe's data, and measure a few training steps of each of its networks.

    Raises:
        InputError: DATA cannot be listed.
        UsageError: No such recipe, variable or network.
    """
    from cxrtool.training.device import choose_device

    images, classes = _count(system)
    folds, repeats = (_number(system, name) if _is_set(system, name) else 1 for name in ("FOLDS", "REPEATS"))
    share = 1 - 1 / folds if folds > 1 else system.holdout
    epochs, batch, size = (_number(system, name) for name in ("EPOCHS", "BATCH", "SIZE"))
    steps = epochs * math.ceil(images * share / batch)
    device = choose_device(settings.device)
    rows = []
    networks = Counter(system.trained())
    with settings.report.progress("measuring", len(networks)) as advance:
        for network, times in networks.items():
            seconds = seconds_a_step(_design(system, network, classes, settings))
            rows.append(Row(network, times * folds * repeats, steps, seconds))
            settings.report.note(f"{network}: {seconds:.3f} s per step")
            advance(1)
    shown = f"cpu, {settings.threads} threads" if device.type == "cpu" else str(device)
    return Estimate(images, classes, epochs, batch, size, shown, rows, system.uncounted)


def _count(system: Recipe) -> tuple[int, int]:
    from cxrtool.data.datasets.listing import list_images
    from cxrtool.data.datasets.record import Request

    records = list_images([Path(system.value("DATA"))], None, Request(), None).records
    return len(records), max(2, len({record.columns.get("label", "") for record in records} - {""}))


STATED = {"EPOCHS": "epochs", "BATCH": "batch_size", "SIZE": "size"}
"""Variables whose value, where they are empty, is that of the system's preset."""


def _is_set(system: Recipe, name: str) -> bool:
    return system.has(name) and bool(system.value(name))


def _number(system: Recipe, name: str) -> int:
    text = system.value(name)
    if not text and name in STATED:
        return int(PRESETS[system.preset][STATED[name]])
    if not text.isdigit() or not int(text):
        raise UsageError(f"{name}: expected a whole number above 0, found '{text}'")
    return int(text)


def _design(system: Recipe, network: str, classes: int, settings: Settings) -> Design:
    from cxrtool.flow.fold_training import make_design
    from cxrtool.models.registry import check_name, network_kernels

    check_name(network)
    size, batch = _number(system, "SIZE"), _number(system, "BATCH")
    # The values of the weights do not change the time of a step, so none are downloaded.
    options = TrainingOptions.of(
        preset=system.preset, model=network, epochs=1, size=size, batch_size=batch, weights="none"
    )
    if system.has("WEIGHTS") and system.value("WEIGHTS") == "none":
        # As `train` does: a random backbone is never frozen.
        options = replace(options, freeze=False)
    return make_design(replace(options, kernels=network_kernels(network, options.kernels)), classes, settings, 0)


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


def _duration(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.0f} min" if hours * 60 >= 1 else "under a minute"
