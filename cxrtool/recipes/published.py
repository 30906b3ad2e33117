"""Results that papers printed, to compare with our own: one `published_NAME.json` per paper.

A file has a `title`, the `source` as a citation, `test_images` by class, `notes`, and `rows`, one per network: its
`name` in the paper, the identical `networks` here, `stand_ins` for networks that are not available (name: reason), the
printed `accuracy`, `overall` (by the names of `metrics.json`) and `per_class` (precision, recall, f1, specificity),
and, where they follow from printed values, `hits` (correctly predicted images of each class), the `confusion` matrix
(rows = true), and `notes`. Where one network has several rows, `runs` names the runs of the recipe for each; a row with
runs but no network belongs to any run of that name, such as fused predictions. `folds` are rows of single folds. `sd`
are printed standard deviations, of the accuracy and of classes; `groups` are accuracies by the values of a column, each
with its standard deviation. All are shares; `percent` is set where the paper prints percentages, and `positive` is its
positive class, which corresponds to ours. Values that follow from counts are computed here, never typed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

PREFIX, SUFFIX = "published_", ".json"
METRICS = ("precision", "recall", "f1", "specificity")
"""The printed metrics of a class, in this order."""


@dataclass(frozen=True)
class PublishedRow:
    """One network of a paper's table.

    Attributes:
        name: Its name in the paper.
        networks: Identical networks here.
        stand_ins: Networks here that stand in for it, and why.
        accuracy: As printed.
        per_class: From class to the printed `METRICS`.
        hits: Correctly predicted images of each class; empty where they do not follow from printed values.
        images: Test images of each class, in the same order.
        confusion: Counts, rows = true; empty where they do not follow from printed values.
        notes: Peculiarities of the row.
        runs: Names of the runs that it is compared with; empty for any run of its networks.
        overall: Printed metrics of all classes together, by the names of `metrics.json`.
        folds: Single folds, in order: `overall`, `per_class`, and the accuracy that follows from their counts.
        sd: Printed standard deviations: `accuracy`, and `per_class` as above.
        groups: From column to its values to the printed accuracy and its standard deviation.
    """

    name: str
    networks: tuple[str, ...]
    stand_ins: Mapping[str, str]
    accuracy: float | None
    per_class: Mapping[str, Mapping[str, float]]
    hits: tuple[int, ...]
    images: tuple[int, ...]
    confusion: tuple[tuple[int, ...], ...]
    notes: tuple[str, ...]
    runs: tuple[str, ...] = ()
    overall: Mapping[str, float] = field(default_factory=dict)
    folds: tuple[Mapping[str, Any], ...] = ()
    sd: Mapping[str, Any] = field(default_factory=dict)
    groups: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)

    @property
    def recomputed(self) -> float | None:
        """The accuracy that follows from the counts."""
        return sum(self.hits) / sum(self.images) if self.hits else None


@dataclass(frozen=True)
class Published:
    """A paper's table.

    Attributes:
        title: Short, for a heading.
        source: The citation.
        classes: In the paper's order.
        rows: One per network.
        notes: Notes on the whole table.
        percent: Whether the paper prints percentages.
        positive: Its positive class, where it has two classes.
        without: By column, in lower case, the value whose images the paper left out.
    """

    title: str
    source: str
    classes: tuple[str, ...]
    rows: tuple[PublishedRow, ...]
    notes: tuple[str, ...]
    percent: bool = False
    positive: str | None = None
    without: Mapping[str, str] = field(default_factory=dict)

    def misfit(self, rows: Iterable[Mapping[str, str]]) -> str:
        """Why the table is not that of these images, by a value that the paper left out; empty where it may be."""
        for column, value in self.without.items():
            if any(row.get(column, "").strip().casefold() == value for row in rows):
                return f"{self.title}: the paper left out the {column} {value}, which these images have"
        return ""

    @property
    def grouped_by(self) -> tuple[str, ...]:
        """The columns by which accuracies are printed."""
        return tuple(dict.fromkeys(column for row in self.rows for column in row.groups))

    def match(self, network: str, run: str = "") -> tuple[PublishedRow, str] | None:
        """The row of a network (a tag such as `.tv_in1k` is ignored), and why the network is only a substitute, or ''.

        Args:
            network: Its name here; empty where it is not known, as for fused predictions.
            run: The name of its run, which decides where a paper has several rows of one network.
        """
        architecture, last = network.split(".")[0], run.split("/")[-1]
        for row in self.rows:
            if row.runs and last not in row.runs:
                continue
            if architecture in row.networks or (row.runs and not row.networks and not row.stand_ins):
                return row, ""
            if architecture in row.stand_ins:
                return row, row.stand_ins[architecture]
        return None


def published_names() -> list[str]:
    """The papers with a table."""
    names = (entry.name for entry in files("cxrtool.recipes").iterdir())
    return sorted(n.removeprefix(PREFIX).removesuffix(SUFFIX) for n in names if n.startswith(PREFIX) and SUFFIX in n)


def read_published(name: str) -> Published:
    """Read the table of a paper, one of `published_names`."""
    content = json.loads((files("cxrtool.recipes") / f"{PREFIX}{name}{SUFFIX}").read_text(encoding="utf-8"))
    images = content.get("test_images", {})
    classes = tuple(images) or tuple(dict.fromkeys(label for row in content["rows"] for label in row["per_class"]))
    rows = tuple(_row(row, tuple(images.values())) for row in content["rows"])
    return Published(
        content["title"],
        content["source"],
        classes,
        rows,
        tuple(content.get("notes", ())),
        content.get("percent", False),
        content.get("positive"),
        content.get("without", {}),
    )


def _row(row: Mapping[str, Any], images: Sequence[int]) -> PublishedRow:
    return PublishedRow(
        row["name"],
        tuple(row["networks"]),
        row.get("stand_ins", {}),
        row.get("accuracy"),
        row.get("per_class", {}),
        tuple(row.get("hits") or ()),
        tuple(images),
        tuple(tuple(counts) for counts in row.get("confusion") or ()),
        tuple(row.get("notes", ())),
        tuple(row.get("runs", ())),
        row.get("overall", {}),
        tuple(_fold(fold) for fold in row.get("folds", ())),
        row.get("sd", {}),
        row.get("groups", {}),
    )


def _fold(fold: Mapping[str, Any]) -> Mapping[str, Any]:
    right = sum(counts[index] for index, counts in enumerate(fold["confusion"]))
    recomputed = right / sum(map(sum, fold["confusion"]))
    return {"accuracy_recomputed": recomputed, "overall": fold["overall"], "per_class": fold["per_class"]}


def beside(
    published: Published, networks: Mapping[str, str], ours: Sequence[str] = (), positive: str | None = None
) -> dict[str, Any]:
    """The paper's rows for our runs, as plain values.

    Args:
        published: The paper's table.
        networks: From run name to its network, empty where it is not known.
        ours: Our classes; two classes correspond to the paper's two if both have a positive one.
        positive: Our positive class.
    """
    renamed = _our_names(published, ours, positive)

    def entry(run: str, network: str, row: PublishedRow, stands_in: str) -> dict[str, Any]:
        return {
            "run": run,
            "network": network,
            "name": row.name,
            "stands_in": stands_in or None,
            "accuracy_printed": row.accuracy,
            "accuracy_recomputed": row.recomputed,
            "right": sum(row.hits) or None,
            "images": sum(row.images) or None,
            "overall": dict(row.overall),
            "folds": list(row.folds),
            "per_class": _renamed(row.per_class, renamed),
            "sd": {**row.sd, "per_class": _renamed(row.sd.get("per_class", {}), renamed)} if row.sd else {},
            "groups": {column: dict(values) for column, values in row.groups.items()},
            "notes": list(row.notes),
        }

    rows, met = [], set()
    for run, network in networks.items():
        found = published.match(network, run)
        if found is not None:
            met.add(found[0].name)
            rows.append(entry(run, network, *found))
    best = max(published.rows, key=lambda row: row.recomputed or row.accuracy or 0.0)
    first = next(iter(networks), None)
    missing = [row.name for row in published.rows if row.name not in met]
    return {
        "title": published.title,
        "source": published.source,
        "notes": [*published.notes, *(f"The paper's class {theirs} is {own} here." for theirs, own in renamed.items())],
        "percent": published.percent,
        "rows": rows,
        # Where no network is the paper's, its best is still what ours are read beside.
        "best": entry(first, networks[first], best, "") if first is not None and not rows else None,
        "not_run_here": missing,
    }


_ALIASES = {
    "nofinding": "normal",
    "healthy": "normal",
    "virus": "viral",
    "viralpneumonia": "viral",
    "bacteria": "bacterial",
    "bacterialpneumonia": "bacterial",
}
"""Names of classes as data sets write them, by the names that papers print."""


def _plain(name: str) -> str:
    """A class by its letters alone.

    >>> _plain("COVID-19") == _plain("covid"), _plain("Viral Pneumonia")
    (True, 'viral')
    """
    letters = re.sub(r"[^a-z]", "", name.casefold())
    return _ALIASES.get(letters, letters)


def _our_names(published: Published, ours: Sequence[str], positive: str | None) -> dict[str, str]:
    """From the paper's class names to ours; empty where they are the same, or the correspondence is unknown."""
    theirs = published.classes
    spelled = {_plain(name): name for name in ours}
    if all(_plain(name) in spelled for name in theirs):
        return {name: spelled[_plain(name)] for name in theirs if name not in ours}
    if published.positive is None or positive not in ours or len(theirs) != 2 or len(ours) != 2:
        return {}
    names = {name: next(own for own in ours if (own == positive) == (name == published.positive)) for name in theirs}
    return {name: own for name, own in names.items() if own != name}


def _renamed(per_class: Mapping[str, Mapping[str, float]], names: Mapping[str, str]) -> dict[str, dict[str, float]]:
    return {names.get(name, name): dict(values) for name, values in per_class.items()}
