"""The decoded images of a manifest, opened once for every size of a command."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cxrtool.data.file_names import REJECTS
from cxrtool.data.tables.manifest import Manifest
from cxrtool.errors import InputError
from cxrtool.flow.chain import decode
from cxrtool.flow.folder import StepFolder
from cxrtool.flow.settings import Settings
from cxrtool.flow.signals import StopRequest

if TYPE_CHECKING:
    from cxrtool.training.store import Store

DECODER = "opencv-python-headless"
"""The library on whose version the decoded pixels may depend."""


class Opener(Protocol):
    """Opens the store of the images of a training."""

    def open(self, size: int, fit: str, request: StopRequest) -> Store:
        """The images at one size."""


class Stores:
    """Opens stores when they are first used, and keeps them.

    Args:
        container: The folder that is written; its plan has versions and the digest of the images.
        warn: Warn about images that cannot be read; not needed if the step reports its rejects.
    """

    def __init__(self, settings: Settings, manifest: Manifest, container: StepFolder, *, warn: bool = True) -> None:
        self.settings, self.manifest, self.container, self.warn = settings, manifest, container, warn
        self._opened: dict[tuple[int, str], Store] = {}

    def open(self, size: int, fit: str, request: StopRequest) -> Store:
        """The images at one size.

        Args:
            size: Side in pixels.
            fit: How an image becomes square, as `--fit`.
            request: Checked between images.

        Raises:
            InputError: Not one image can be read.
            StoppedError: A signal arrived.
        """
        if (size, fit) not in self._opened:
            store = self._decode(size, fit, request)
            if not self._opened:
                self._report_failures(store)
            self._opened[size, fit] = store
        return self._opened[size, fit]

    def _decode(self, size: int, fit: str, request: StopRequest) -> Store:
        from cxrtool.flow.parallel import map_items
        from cxrtool.training.store import default_cache, open_store

        settings, plan = self.settings, self.container.plan
        key: dict[str, Any] = {"size": size, "fit": fit, "decoder": plan.versions()[DECODER]}
        if settings.verify:
            # The store itself compares only size and time of the files.
            key["content"] = plan.inputs.digest
        paths = [Path(row["path"]) for row in self.manifest.rows]
        with settings.report.progress("decoding", len(paths)) as advance:

            def count(number: int) -> None:
                advance(number)
                request.raise_if_stopped()

            return open_store(
                paths,
                partial(decode, chain=[], size=size, fit=fit),
                size=size,
                key=key,
                cache=settings.cache or default_cache(),
                mapper=map_items,
                workers=settings.workers,
                advance=count,
                say=settings.report.say,
            )

    def _report_failures(self, store: Store) -> None:
        if len(store.failed) == len(store):
            raise InputError(
                f"{self.manifest.name}: none of the {len(store)} images can be read, the first: "
                f"{next(iter(store.failed.values()), 'there are none')}"
            )
        if store.failed and self.warn:
            self.settings.report.warn(
                f"{len(store.failed)} of {len(store)} images cannot be read and are excluded; "
                f"each with its reason in {self.container.shown / REJECTS}"
            )
