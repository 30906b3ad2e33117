"""What fitting a part for every fold of a split is about, whatever is fitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cxrtool.data.manifest import Row
from cxrtool.errors import StrictError
from cxrtool.flow.assignment import Assignment
from cxrtool.flow.folder import REJECTS
from cxrtool.flow.settings import Settings

Summary = tuple[list[str], list[list[str]], str]
"""Header, rows and title of a table of figures."""


def tell_of_validation(folds: Sequence[Assignment], values: Mapping[str, Any], settings: Settings) -> None:
    """Say where an option that looks at validation images has none to look at."""
    bare = [a.name for a in folds if not a.subsets["validation"]]
    idle = [f"--checkpoint {values['checkpoint']}"] if values["checkpoint"] != "last" else []
    idle += ["--patience"] if values["patience"] else []
    if bare and idle:
        settings.report.warn(
            f"{len(bare)} of {len(folds)} folds have no validation images, such as {bare[0]}: there "
            f"{', '.join(idle)} has nothing to go by, and the last epoch is kept"
        )


def heed_strict(rejects: Sequence[Row], settings: Settings) -> None:
    """Tell of what was rejected once all is done.

    Raises:
        StrictError: `--strict`, and something was.
    """
    if rejects and settings.strict:
        raise StrictError(f"{len(rejects)} rejected, each with its reason in {REJECTS}")
