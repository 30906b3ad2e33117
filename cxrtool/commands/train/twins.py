"""Training on twins that are not saved: those of a fold are made when it is trained, and deleted when it is done."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cxrtool.data.cache import open_cache
from cxrtool.data.files import saying_what_fails
from cxrtool.data.tables.manifest import Manifest, Row, order_columns
from cxrtool.data.tables.twins import twin_class, twin_classes, twin_rows
from cxrtool.flow.assignment import Assignment
from cxrtool.flow.chain import Chain, chain_of_rows
from cxrtool.flow.fold_training import Stores, Task
from cxrtool.flow.settings import Settings
from cxrtool.flow.signals import StopRequest
from cxrtool.flow.twins import FoldGenerators, GeneratorRun, make_twins, refuse_twins

if TYPE_CHECKING:
    import numpy as np

    from cxrtool.training.store import Store

OPTION = "--transform"
COLUMNS = ("sha256", "parent_id", "generator", "repeat", "fold")
"""The columns of a manifest of twins beside those of their radiographs."""


def find_generators(argument: Path, manifest: Manifest) -> GeneratorRun:
    """The run that `--transform` names.

    Raises:
        InputError: It is not such a run, or the images are twins already.
    """
    refuse_twins(manifest, "train --transform")
    return GeneratorRun.find(argument, OPTION)


class TwinTraining:
    """Turns folds of radiographs into folds of their twins.

    Args:
        wanted: The folds to train.

    Attributes:
        classes: Those of the twins, in order.

    Raises:
        InputError: A fold has no generators, or they have other classes or were fitted on other images.
        LeakageError: They were fitted on a test image, as far as the manifest has digests and patients.
    """

    def __init__(self, run: GeneratorRun, wanted: Sequence[Assignment], manifest: Manifest, settings: Settings) -> None:
        self.manifest = manifest
        found = run.load([(a.repeat, a.fold) for a in wanted])
        run.check_labels(found[0], manifest, exactly=True)
        self.classes = twin_classes(manifest.classes(), found[0].classes)
        self.folds: dict[str, tuple[FoldGenerators, Chain]] = {}
        for assignment, fold in zip(wanted, found, strict=True):
            chain = chain_of_rows([manifest.rows[i] for i in _used(assignment)])
            run.check_chain(fold, chain, manifest.name)
            if not settings.allow_leakage:
                # `TwinStores` checks again when the pixels of all images are known.
                fold.refuse_seen([manifest.rows[i] for i in assignment.subsets["test"]], settings)
            self.folds[fold.name] = fold, [*chain, fold.entry()]

    @property
    def shape(self) -> tuple[int, str]:
        """Side of the radiographs that the generators read, and their `--fit`."""
        form = next(iter(self.folds.values()))[0].form
        return form.size, form.fit

    def prepare(self, task: Task, radiographs: Stores, assignment: Assignment) -> tuple[Task, Assignment]:
        """The task and the assignment of the twins of one fold; nothing is computed yet.

        Args:
            task: Of the whole command.
            radiographs: Decoded when they are first used.
            assignment: The fold, with indices of radiographs.
        """
        fold, chain = self.folds[assignment.name]
        indices = _used(assignment)
        rows = [
            {**twin, "label": twin_class(twin["label"], twin["generator"])}
            for index in indices
            for twin in twin_rows(self.manifest.rows[index], fold.repeat, fold.fold, fold.classes)
        ]
        count = len(fold.classes)
        new = {index: range(k * count, (k + 1) * count) for k, index in enumerate(indices)}
        subsets = {name: [i for index in old for i in new[index]] for name, old in assignment.subsets.items()}
        manifest = Manifest(order_columns([*self.manifest.columns, *COLUMNS]), rows, self.manifest.origin)
        stores = TwinStores(task.settings, fold, radiographs, indices, assignment.subsets["test"], rows)
        own = TwinTask(
            **{**vars(task), "manifest": manifest, "classes": self.classes, "chain": chain, "stores": stores}
        )
        return own, replace(assignment, subsets=subsets)


def _used(assignment: Assignment) -> list[int]:
    """The indices of a fold in the order of the manifest, in which `transform` writes them."""
    return sorted(index for indices in assignment.subsets.values() for index in indices)


@dataclass(frozen=True)
class TwinTask(Task):
    """The training on one fold's twins."""

    def chain_of(self, assignment: Assignment) -> Chain:
        """Their processing steps, with the generators of this fold at the end."""
        return self.chain


class TwinStores:
    """Makes the twins of one fold when they are first used.

    They are in unnamed files in the folder of the cache, which are deleted when the fold is done or the process is
    killed.

    Args:
        indices: Of the images that the fold uses.
        tested: Indices of its test images.
        rows: Of the twins; missing digests are set to those of the radiographs.
    """

    def __init__(
        self,
        settings: Settings,
        fold: FoldGenerators,
        radiographs: Stores,
        indices: Sequence[int],
        tested: Sequence[int],
        rows: Sequence[Row],
    ) -> None:
        self.settings, self.fold, self.radiographs = settings, fold, radiographs
        self.indices, self.tested, self.rows = indices, tested, rows
        self._made: Store | None = None
        self._opened: dict[tuple[int, str], Store] = {}

    def open(self, size: int, fit: str, request: StopRequest) -> Store:
        """The twins at one size; those of a radiograph that cannot be read are in `failed`.

        Args:
            size: Side in pixels.
            fit: How an image becomes square, as `--fit`.
            request: Checked between images.

        Raises:
            InputError: Not one image can be read.
            LeakageError: The generators were fitted on a test image.
            StoppedError: A signal arrived.
        """
        if self._made is None:
            self._made = self._make(request)
        if (size, fit) not in self._opened:
            same = size == self.fold.form.size
            self._opened[size, fit] = self._made if same else self._resize(self._made, size, fit)
        return self._opened[size, fit]

    def _make(self, request: StopRequest) -> Store:
        from cxrtool.training.store import Store, deepen

        form, count = self.fold.form, len(self.fold.classes)
        given = self.radiographs.open(form.size, form.fit, request)
        digests = given.sha256
        rows = self.radiographs.manifest.rows
        known = [{**rows[i], "sha256": rows[i].get("sha256") or digests[i]} for i in self.tested]
        self.fold.refuse_seen(known, self.settings)
        for k, row in enumerate(self.rows):
            row["sha256"] = row.get("sha256") or digests[self.indices[k // count]]
        failed = {
            k * count + g: given.failed[index]
            for k, index in enumerate(self.indices)
            if index in given.failed
            for g in range(count)
        }
        images = self._allocate(given.images.dtype, len(self.rows), form.size)
        readable = [k for k, index in enumerate(self.indices) if index not in given.failed]
        with self.settings.report.progress(f"{self.fold.name}  twins", len(readable)) as advance:
            for k, twins in make_twins(self.settings, self.fold, given, self.indices, readable, request):
                for g, twin in enumerate(twins):
                    images[k * count + g] = deepen(twin) if images.dtype.itemsize > 1 else twin
                advance(1)
        return Store(images, [digests[index] for index in self.indices for _ in range(count)], failed)

    def _resize(self, made: Store, size: int, fit: str) -> Store:
        """Resize as if the twins had been saved: in their own depth."""
        from cxrtool.imaging.resize import prepare_pixels
        from cxrtool.training.store import deepen
        from cxrtool.training.twin_maker import minimal_depth

        images = self._allocate(made.images.dtype, len(made), size)
        for k, picture in enumerate(made.images):
            resized = prepare_pixels(minimal_depth(picture), size, fit)
            images[k] = deepen(resized) if images.dtype.itemsize > 1 else resized
        return replace(made, images=images, _resident=None)

    def _allocate(self, dtype: np.dtype[np.generic], count: int, size: int) -> np.ndarray:
        """An empty array (count, size, size, 3) in an unnamed file, with all of its disk space allocated."""
        import numpy as np

        from cxrtool.imaging.channels import COLOURS

        shape = (count, size, size, COLOURS)
        cache = open_cache(self.settings.cache)
        with saying_what_fails(cache, "--cache"), tempfile.TemporaryFile(dir=cache) as file:
            if hasattr(os, "posix_fallocate"):
                # Writing into a mapped file without allocated space kills the process when the disk is full.
                os.posix_fallocate(file.fileno(), 0, max(1, math.prod(shape) * dtype.itemsize))
            return np.memmap(file, dtype, "r+", shape=shape)
