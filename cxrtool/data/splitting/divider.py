"""Divide images into training, validation and test.

Groups of images (`data.splitting.grouping`) are divided, never single images, so that a patient cannot be on two sides.
Without pandas: the division needs a count of each group, and a group seldom has more than a few rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from math import isclose

from cxrtool.data.splitting.dealing import deal, rank
from cxrtool.data.splitting.grouping import PATIENT, group_images
from cxrtool.data.splitting.splits import SUBSETS, Run
from cxrtool.data.tables.views import RowView, cells_of
from cxrtool.errors import InputError, UsageError


def parse_holdout(text: str) -> dict[str, float]:
    """The shares of the subsets.

    >>> parse_holdout("60/20/20")
    {'train': 0.6, 'validation': 0.2, 'test': 0.2}
    >>> parse_holdout("80/20")
    {'train': 0.8, 'test': 0.2}
    """
    try:
        parts = [float(part) for part in text.split("/")]
    except ValueError:
        parts = []
    whole = 100.0 if sum(parts) > 1.5 else 1.0
    if len(parts) not in (2, 3) or min(parts, default=-1) < 0 or not isclose(sum(parts), whole, rel_tol=1e-6):
        raise UsageError(
            f"--holdout: expected shares that add up to 100, such as 60/20/20 or 80/20, found '{text}'",
            "training / validation / test, or training / test",
        )
    names = SUBSETS if len(parts) == 3 else ("train", "test")
    shares = {name: part / whole for name, part in zip(names, parts, strict=True) if part}
    if "train" not in shares or "test" not in shares:
        raise UsageError(f"--holdout: training and test each need a share, found '{text}'")
    return shares


def equalise(
    runs: Mapping[Run, Mapping[str, str]], values: Mapping[str, str], keep: Collection[str] = (), seed: int = 0
) -> dict[Run, dict[str, str]]:
    """Thin out a division until every subset of every fold has as many images of each value as of its rarest.

    Images are drawn by seed, repeat and id alone: the order of rows, the fold and the subsets that stay whole do not
    affect the draw, so that the same images are preferred everywhere. No image changes sides, hence no patient does.

    Args:
        runs: The subset of each image id, for every repeat and fold; ids without a value are excluded.
        values: The value of each image id; an image with an empty value is kept only in subsets that stay whole.
        keep: Subsets that stay whole.
        seed: Which of the many draws.

    >>> runs = {("0", "0"): {"a": "train", "b": "train", "c": "train", "d": "test", "e": "test"}}
    >>> found = equalise(runs, {"a": "P", "b": "N", "c": "N", "d": "N", "e": "N"}, keep=["test"])
    >>> sorted(found["0", "0"].values())
    ['test', 'test', 'train', 'train']
    """
    thinned: dict[Run, dict[str, str]] = {}
    for run, subsets in runs.items():
        inside: dict[str, dict[str, list[str]]] = {}
        for name in sorted(subsets, key=lambda name: rank(seed, "equal", run[0], name)):
            if values.get(name):
                inside.setdefault(subsets[name], {}).setdefault(values[name], []).append(name)
        fewest = {subset: min(map(len, groups.values())) for subset, groups in inside.items()}
        drawn = {
            name for subset, groups in inside.items() for group in groups.values() for name in group[: fewest[subset]]
        }
        thinned[run] = {
            name: subset for name, subset in subsets.items() if name in values and (subset in keep or name in drawn)
        }
    return thinned


class Divider:
    """Divides the images of a manifest, group by group, into subsets in which every stratum has its share.

    Args:
        rows: Rows of a manifest; their order does not affect the result.
        group: The column that names the patient.
        strata: Columns; each is balanced within the values of those before it. An empty cell is a value.
        seed: Which of the many good divisions is drawn.
    """

    def __init__(
        self, rows: Sequence[RowView], group: str = PATIENT, strata: Sequence[str] = ("label",), seed: int = 0
    ) -> None:
        self.rows, self.seed = rows, seed
        self.ids, self.labels = cells_of(rows, "image_id"), cells_of(rows, "label")
        self.classes = sorted(set(self.labels))
        groups: dict[int, list[int]] = {}
        numbers = group_images(rows, group)
        for index in sorted(range(len(rows)), key=self.ids.__getitem__):
            groups.setdefault(numbers[index], []).append(index)
        self.groups = list(groups.values())
        strata_of = list(zip(*(cells_of(rows, column) for column in strata), strict=True)) or [()] * len(rows)
        # Most groups have the same counts as others, and share them.
        known: dict[tuple[object, ...], Counter[Hashable]] = {}
        self.counts = []
        for members in self.groups:
            key = tuple((strata_of[i], self.labels[i]) for i in members)
            if key not in known:
                known[key] = self._count([strata_of[i] for i in members], {self.labels[i] for i in members})
            self.counts.append(known[key])
        self.names = [self.ids[members[0]] for members in self.groups]

    def holdout(self, shares: Mapping[str, float], repeat: int = 0) -> dict[str, str]:
        """One division into subsets of the given shares.

        Raises:
            InputError: A class has fewer patients than there are subsets.
        """
        self._check_patients(len(shares), "subsets", "smaller classes can be joined or excluded with `cxrtool select`")
        chosen = self._deal(range(len(self.groups)), list(shares.values()), ("holdout", repeat))
        names = list(shares)
        return self._subsets({group: names[part] for group, part in chosen.items()})

    def folds(self, count: int, validation: float, repeat: int = 0) -> list[dict[str, str]]:
        """Cross-validation: every group is in the test subset of one fold.

        Raises:
            InputError: A class has fewer patients than there are folds.
        """
        self._check_patients(count, "folds", "take fewer --folds, or join or exclude small classes with `select`")
        chosen = self._deal(range(len(self.groups)), [1 / count] * count, ("folds", repeat))
        return [
            self._with_validation({group for group in chosen if chosen[group] == fold}, validation, (repeat, fold))
            for fold in range(count)
        ]

    def most_folds(self) -> int:
        """The largest number of folds for which every class has enough patients."""
        return min(map(self._patients_of, self.classes))

    def leave_out(self, column: str, validation: float) -> dict[str, dict[str, str]]:
        """For every value of a column, in order, a fold that tests on it and trains on the others.

        Images of a tested patient that have another value are on neither side; images without a value only train.
        """
        cells = cells_of(self.rows, column)
        values = sorted(set(cells) - {""})
        if len(values) < 2:
            raise InputError(
                f"--leave-out {column}: expected at least two values in that column, found {len(values)}",
                f"the values: {', '.join(values) or 'none'}",
            )
        result = {}
        for fold, value in enumerate(values):
            tested = {g for g, group in enumerate(self.groups) if any(cells[i] == value for i in group)}
            subsets = self._with_validation(tested, validation, (column, fold))
            others = {name for name, cell in zip(self.ids, cells, strict=True) if cell != value}
            result[value] = {i: subset for i, subset in subsets.items() if subset != "test" or i not in others}
        return result

    def _with_validation(self, tested: set[int], share: float, run: Hashable) -> dict[str, str]:
        rest = [group for group in range(len(self.groups)) if group not in tested]
        subsets = dict.fromkeys(tested, "test") | dict.fromkeys(rest, "train")
        if share:
            chosen = self._deal(rest, [1 - share, share], ("validation", run))
            subsets |= {group: "validation" for group, part in chosen.items() if part}
        return self._subsets(subsets)

    def _deal(self, groups: Iterable[int], shares: Sequence[float], draw: Hashable) -> dict[int, int]:
        groups = list(groups)
        counts, names = [self.counts[g] for g in groups], [self.names[g] for g in groups]
        classes = [("patients", 1, label) for label in self.classes]
        return dict(zip(groups, deal(counts, shares, names, (self.seed, draw), classes), strict=True))

    def _subsets(self, of_group: Mapping[int, str]) -> dict[str, str]:
        return {self.ids[i]: subset for group, subset in of_group.items() for i in self.groups[group]}

    def _count(self, strata: Sequence[tuple[str, ...]], labels: Collection[str]) -> Counter[Hashable]:
        counts: Counter[Hashable] = Counter({"images": len(strata)})
        for stratum in strata:
            counts.update(stratum[: depth + 1] for depth in range(len(stratum)))
        # Patients as well as images: a class with one patient of thirty images is balanced in neither alone.
        counts.update({("patients", 1, label): 1 for label in sorted(labels)})
        return counts

    def _check_patients(self, needed: int, parts: str, hint: str) -> None:
        for label in self.classes:
            found = self._patients_of(label)
            if found < needed:
                class_ = f"the class '{label}'" if label else "every class"
                raise InputError(f"expected a patient of {class_} for each of {needed} {parts}, found {found}", hint)

    def _patients_of(self, label: str) -> int:
        return sum(("patients", 1, label) in counts for counts in self.counts)
