"""The options of `audit`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cxrtool.auditing.catalogue import PROBES
from cxrtool.errors import UsageError
from cxrtool.flow import common_options
from cxrtool.flow.settings import COMPUTING, READING, RUNNING
from cxrtool.options import Options, one_of, option


@dataclass(frozen=True)
class AuditOptions(Options):
    """The options of `audit`."""

    SHARED: ClassVar[tuple[str, ...]] = ("out", "seed", *COMPUTING, *READING, *RUNNING, "style")

    manifest: Path = common_options.manifest()
    splits: Path | None = option("The splits to audit.", None, shown="those of --run, else five folds")
    run: Path | None = option("The model to audit, or its predictions.", None, metavar="RUN|CSV", shown="")
    external: Path | None = option("External images with the same labels.", None, metavar="MANIFEST", shown="")
    stages: tuple[str, ...] = option(
        "The same images after another step: can the source still be predicted? May be given several times.",
        (),
        flags=("--stage",),
        metavar="NAME=MANIFEST",
        shown="",
    )
    probes: str | None = option(
        "The probes to run, among {choices}.", None, metavar="NAMES", choices=PROBES, closed=False, shown="all"
    )
    permutations: int = option("Permutations of the labels, to estimate chance.", 200, minimum=100)
    images: int = option("Test images for heatmaps and covered corners; 0 for none.", 100, minimum=0)
    reference: Path | None = option(
        "Masks or boxes of what does not show the disease, such as devices and letters, for the share of the heatmaps "
        "on it: a folder or a table as for `cxrtool explain --reference`.",
        None,
        metavar="MASKS",
        shown="",
    )
    structure: str | None = common_options.structure()
    quick: bool = option("Only what needs no training.", False)
    partial: bool = common_options.partial()
    max_pixels: int | None = common_options.max_pixels()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reference is not None and (self.run is None or not self.images or self.quick):
            raise UsageError("--reference: is for heatmaps, which need --run and --images, and no --quick")
        if self.structure is not None and self.reference is None:
            raise UsageError("--structure: can be used only with --reference")
        for name in self.chosen_probes() or ():
            one_of("--probes", name, PROBES)

    def chosen_probes(self) -> list[str] | None:
        """The names in `--probes`, separated by commas; None for all.

        >>> AuditOptions(Path("manifest.csv"), probes="border, thumbnail").chosen_probes()
        ['border', 'thumbnail']
        """
        return [name.strip() for name in self.probes.split(",")] if self.probes else None
