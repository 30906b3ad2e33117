"""What a classifier learns: the column `label`, or another one, whose strata are then the labels (`train --target`).

As text a target is what `evaluate --by` groups by: `sex`, `grade:low/mid/high`, `age:0,40,65`. With a colon its strata
have an order. A model keeps the text, and predictions have it in the column `learned`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cxrtool.data.tables.manifest import Manifest
from cxrtool.data.tables.predictions import LEARNED
from cxrtool.data.tables.severity import ESTIMATED, SEVERITIES, SEVERITY
from cxrtool.data.tables.views import Columns, columns_of
from cxrtool.errors import InputError, UsageError
from cxrtool.flow.twins import as_classes, refuse_twins
from cxrtool.models.description import ModelDescription

if TYPE_CHECKING:
    from cxrtool.evaluation.groups import Grouping

LABEL = "label"


@dataclass(frozen=True)
class Learned:
    """What a classifier learns of a manifest.

    Attributes:
        manifest: The images, each with its class as label, which is empty where it has none.
        classes: In the order of the outputs.
        target: As text, with the order of the classes; empty for the column `label`.
    """

    manifest: Manifest
    classes: list[str]
    target: str = ""

    @property
    def ordered(self) -> bool:
        """Whether the classes are from least to most."""
        return ":" in self.target

    @property
    def column(self) -> str:
        """The column of the classes."""
        return self.target.partition(":")[0] or LABEL


def learned(manifest: Manifest, target: str) -> Learned:
    """The classes of `--target`; severities are in their order.

    Raises:
        InputError: There is no such column, or the images are twins.
        UsageError: The target is more than one column, or has values that its order does not name.
    """
    if target == LABEL:
        return Learned(*as_classes(manifest))
    from cxrtool.evaluation.groups import is_ordered, read_strata

    grouping = _parse(target)
    column, option = grouping.column, f"--target {target}"
    manifest.require(column)
    refuse_twins(manifest, option)
    cells, names = read_strata([cell.strip() for cell in manifest.column(column)], grouping)
    present = set(cells)
    names = [name for name in names if name in present]
    ordered = bool(grouping.edges) or is_ordered(names, grouping)
    if not ordered and (grouping.order or column in (SEVERITY, ESTIMATED)):
        known = [name.casefold() for name in SEVERITIES]
        other = next(n for n in names if (n not in grouping.order if grouping.order else n.casefold() not in known))
        raise UsageError(
            f"{option}: expected {', '.join(grouping.order or SEVERITIES)}, found '{other}' in "
            f"{manifest.place(cells.index(other))}",
            f"name all from least to most, as --target {column}:low/mid/high; or exclude images with `cxrtool select`",
        )
    by_name = {name.casefold(): name for name in names}
    if twice := next((name for name in names if by_name[name.casefold()] != name), None):
        raise InputError(
            f"{option}: expected each class in one spelling, found '{twice}' and '{by_name[twice.casefold()]}' in the "
            f"column '{column}' of {manifest.name}",
            "correct the table",
        )
    text = target if grouping.edges else f"{column}:{'/'.join(names)}" if ordered else column
    return Learned(_with(manifest, cells), names, text)


def as_learned(manifest: Manifest, model: ModelDescription) -> Manifest:
    """Images for a model, with the labels that it has learned, where the manifest has their column, and its target.

    A manifest without the column keeps its labels; those of a model of the column `label` stay as they are.
    """
    if not model.target:
        return manifest
    from cxrtool.evaluation.groups import read_strata

    grouping = _parse(model.target)
    if any(cell.strip() for cell in manifest.column(grouping.column)):
        cells, _ = read_strata([cell.strip() for cell in manifest.column(grouping.column)], grouping)
        return _with(manifest, cells, model.target)
    order = f"{LABEL}:{'/'.join(model.classes)}" if ":" in model.target else ""
    return _with(manifest, list(manifest.column(LABEL)), order)


def _parse(target: str) -> Grouping:
    from cxrtool.evaluation.groups import parse_groupings

    found = parse_groupings(target, "--target")
    if len(found) != 1:
        raise UsageError(f"--target: expected one column, found '{target}'", "for instance --target severity")
    return found[0]


def _with(manifest: Manifest, labels: list[str], target: str = "") -> Manifest:
    columns = columns_of(manifest.records, manifest.columns)
    cells = {**columns.cells, LABEL: labels, **({LEARNED: [target] * len(columns)} if target else {})}
    return Manifest.of_columns(Columns(cells, len(columns)), manifest)
