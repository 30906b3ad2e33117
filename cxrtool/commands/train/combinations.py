"""The combinations of options that a grid search tries: all, or a random sample."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, get_args

from cxrtool.commands.train.options import TrainOptions
from cxrtool.errors import UsageError
from cxrtool.options import did_you_mean

Grid = dict[str, Sequence[Any]]
"""By field of an option, its values in order."""

MOST = 10_000
"""Maximum number of combinations without `--budget`."""

KERNELS = "kernels"
LISTS = ("augment", KERNELS)
"""Options whose values contain commas."""

TRUE, FALSE = ("yes", "true", "on"), ("no", "false", "off")


@dataclass(frozen=True)
class Combination:
    """One setting of the options of `train`.

    Attributes:
        changes: The values of the grid, by field; empty in a plain training.
    """

    options: TrainOptions
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """As on the command line: `model=resnet18 lr=0.01`."""
        return " ".join(f"{flag(key)}={show(value)}" for key, value in self.changes.items())


def flag(key: str) -> str:
    """The flag of a field.

    >>> flag("batch_size")
    'batch-size'
    """
    return key.replace("_", "-")


def show(value: Any) -> str:
    """A value as on the command line."""
    if isinstance(value, bool):
        return TRUE[0] if value else FALSE[0]
    return f"{value:g}" if isinstance(value, float) else str(value)


def parse_grid(texts: Sequence[str], kinds: Mapping[str, Any]) -> Grid:
    """Read `KEY=a,b` of every `--grid`.

    Commas separate the values. If a value contains commas, use `|` as separator, or repeat `--grid` with the same key:
    its values are joined. For `augment` and `kernels` a comma never separates.

    >>> parse_grid(["lr=0.1,0.01", "augment=none|rotate=10,flip=0.5"], {"lr": float | None, "augment": str | None})
    {'lr': [0.1, 0.01], 'augment': ['none', 'rotate=10,flip=0.5']}

    Args:
        texts: The values of `--grid`.
        kinds: The type of every option that may be varied, by field.

    Raises:
        UsageError: A key is unknown, or a value is missing or not a number.
    """
    grid: Grid = {}
    for text in texts:
        name, equals, rest = text.partition("=")
        key = name.strip().removeprefix("--").replace("-", "_")
        if not equals or key not in kinds:
            _refuse(text, name.strip(), kinds)
        mark = "|" if "|" in rest or key in LISTS else ","
        values = [_read(key, part.strip(), kinds[key]) for part in rest.split(mark) if part.strip()]
        if not values:
            raise UsageError(f"--grid {text}: expected values after '=', found none", "for instance --grid lr=0.1,0.01")
        grid[key] = list(dict.fromkeys([*grid.get(key, []), *values]))
    return grid


def _refuse(text: str, name: str, kinds: Mapping[str, Any]) -> None:
    flags = [flag(key) for key in kinds]
    if "=" not in text:
        raise UsageError(f"--grid {text}: expected KEY=VALUE,VALUE", "for instance --grid lr=0.1,0.01")
    meant = did_you_mean(name, flags, 0.5)
    raise UsageError(f"--grid: expected an option of train as key, found '{name}'{meant}", f"known: {', '.join(flags)}")


def _read(key: str, text: str, kind: Any) -> Any:
    kinds = get_args(kind) or (kind,)
    try:
        if bool in kinds:
            return {**dict.fromkeys(TRUE, True), **dict.fromkeys(FALSE, False)}[text.casefold()]
        return int(text) if int in kinds else float(text) if float in kinds else text
    except (ValueError, KeyError):
        wanted = "yes or no" if bool in kinds else "a whole number" if int in kinds else "a number"
        raise UsageError(f"--grid {flag(key)}: expected {wanted}, found '{text}'") from None


def with_kernels(grid: Grid, size: int | None) -> Grid:
    """The grid with names of families, such as `kernels=uniform`, replaced by their networks.

    Args:
        grid: Keys and values.
        size: Side of the input in pixels if the grid does not vary it; None means the network's own.
    """
    if KERNELS not in grid:
        return grid
    from cxrtool.models.kernels import expand
    from cxrtool.models.registry import native_size

    smallest = min(grid.get("size") or [size or native_size("covid-xnet")])
    return {**grid, KERNELS: expand(grid[KERNELS], smallest)}


def draw(grid: Grid, budget: int | None, seed: int, own: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The combinations to try, in the order of the grid: the last key changes fastest.

    With a budget, as many are drawn without repetition. If the grid contains the combination of the other options, it
    is the first and always among them.

    Args:
        grid: Keys and values.
        budget: How many; None tries all.
        seed: Of the draw.
        own: The values of the options without the grid; options that were not set are missing.

    Raises:
        UsageError: There are more than `MOST`.
    """
    total = prod(len(values) for values in grid.values())
    if budget is None and total > MOST:
        raise UsageError(
            f"--grid: expected at most {MOST:,} combinations, found {total:,}", "draw some of them: --budget 50"
        )
    first = _index_of(grid, own)
    rest = [index for index in _drawn(total, budget, seed, first) if index != first]
    return [_at(grid, index) for index in ([] if first is None else [first]) + sorted(rest)]


def _drawn(total: int, budget: int | None, seed: int, first: int | None) -> list[int]:
    if budget is None or budget >= total:
        return list(range(total))
    # A sparse Fisher-Yates shuffle. Of Python's generator only `random` is guaranteed to stay the same.
    generator, wanted = random.Random(seed), budget - (first is not None)
    moved: dict[int, int] = {}
    result: list[int] = []
    for step in range(total):
        if len(result) == wanted:
            break
        other = step + int(generator.random() * (total - step))
        chosen = moved.get(other, other)
        moved[other] = moved.get(step, step)
        if chosen != first:
            result.append(chosen)
    return result


def _index_of(grid: Grid, own: Mapping[str, Any]) -> int | None:
    index = 0
    for key, values in grid.items():
        if key not in own or own[key] not in values:
            return None
        index = index * len(values) + values.index(own[key])
    return index


def _at(grid: Grid, index: int) -> dict[str, Any]:
    result = {}
    for key, values in reversed(grid.items()):
        index, digit = divmod(index, len(values))
        result[key] = values[digit]
    return {key: result[key] for key in grid}
