"""The shared options of `fit lungs`, `fit opacities` and `fit ribs`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from cxrtool.commands.fit.pairs import Targets
from cxrtool.errors import UsageError
from cxrtool.flow import common_options
from cxrtool.flow.settings import COMPUTING, READING, RUNNING
from cxrtool.options import option
from cxrtool.training.image_to_image_options import ImageToImageOptions

SHARED = (
    "out",
    "seed",
    *COMPUTING,
    "cluster",
    "precision",
    "cache",
    "allow_leakage",
    *READING,
    "replace",
    *RUNNING,
    "style",
)
"""The shared options of all `fit` commands."""


@dataclass(frozen=True, kw_only=True)
class PartOptions(ImageToImageOptions):
    """The options of `fit lungs`, `fit opacities` and `fit ribs`.

    Attributes:
        KIND: What is fitted.
    """

    KIND: ClassVar[str]
    SHARED: ClassVar[tuple[str, ...]] = SHARED

    manifest: Path = common_options.manifest(effect=False)
    splits: Path | None = option(
        "Fit one network for each fold of this splits file of `cxrtool split`.", None, shown="", effect=False
    )
    also: Path | None = option(
        "Further images for training only.",
        None,
        metavar="MANIFEST",
        shown="",
        effect=False,
    )
    target_column: str = ""
    weights: str = ""
    validation: float = option("Share of the patients for validation, without --splits.", 0.1, minimum=0, maximum=1)
    balance: str | None = option(
        "Draw the same number of training images for each value of this column.", None, metavar="COLUMN", shown=""
    )
    only: str | None = common_options.only()
    jobs: int = common_options.jobs()
    save_every: float = common_options.save_every()

    def check(self) -> None:
        """Check ranges and combinations.

        Raises:
            UsageError: A number is out of range, or options exclude each other.
        """
        self.check_numbers()
        if not 0.0 <= self.average < 1.0:
            raise UsageError(f"--average: expected a number from 0 to below 1, found {self.average}")
        if not 0.0 <= self.validation < 1.0:
            raise UsageError(f"--validation: expected a share from 0 to below 1, found {self.validation}")
        if not 1 <= self.copies < 1000 or not 0 <= self.dilate < 256:
            raise UsageError("--copies: expected a number from 1 to 999; --dilate: from 0 to 255")
        if self.only and not self.splits:
            raise UsageError("--only selects folds, and there are none without --splits")
        if self.jobs > 1 and not self.splits:
            raise UsageError("--jobs: expected --splits, whose folds are fitted side by side, found one network to fit")

    def start(self) -> Path | None:
        """The folder of the part that a fit begins with, if it begins with one."""
        return None

    def targets(self) -> Targets:
        """Where the targets are."""
        return Targets(self.target_column)

    def identity(self) -> dict[str, Any]:
        """The options that affect the result; the share of validation only where there are no splits."""
        found = {"kind": self.KIND, **super().identity()}
        if self.splits:
            found.pop("validation")
        return found
