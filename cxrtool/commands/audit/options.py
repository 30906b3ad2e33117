"""The options of `audit`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class AuditOptions:
    """The options of `audit`.

    Attributes:
        manifest: The images.
        splits: Their division; None takes that of `run`, else draws five folds.
        run: A run, or its predictions as CSV: the model that is audited.
        external: A manifest from elsewhere.
        stages: The same images after other steps, each as NAME=MANIFEST.
        probes: Names of probes, with commas between; None takes all.
        permutations: Of labels, for what chance alone would reach.
        images: Test images whose heatmaps are made and whose corners are covered; 0 leaves both out.
        quick: Only what needs no training.
        partial: Take a run of which some folds are missing.
        max_pixels: Refuse larger pictures before they are decoded.
    """

    manifest: Path
    splits: Path | None = None
    run: Path | None = None
    external: Path | None = None
    stages: tuple[str, ...] = ()
    probes: str | None = None
    permutations: int = 200
    images: int = 100
    quick: bool = False
    partial: bool = False
    max_pixels: int | None = None
