"""Distribute groups of images over parts of given shares, so that every stratum is spread as the whole is.

Greedy, the largest group first, then improved by moving and exchanging groups while that helps. scikit-learn's
`StratifiedGroupKFold` has only equal parts, one level of strata and no improvement; it is the reference in the tests.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations, product

Counts = Mapping[Hashable, int]
_Change = Mapping[int, int]
"""Counts with numbers for strata, which are found quicker."""

EXCHANGE_LIMIT = 300
"""Up to this many groups, pairs are exchanged too; with more groups, moving single groups is enough."""

_TINY = 1e-8


def rank(*parts: object) -> str:
    """A pseudo-random text that depends on `parts` alone, so that the order of rows never affects a draw."""
    return hashlib.sha256("\0".join(map(str, parts)).encode(errors="backslashreplace")).hexdigest()


class _Table:
    """The excess of every stratum in each part over its expected count, and the cost of a change.

    The cost is Pearson's chi-squared: the squared excess over the expected count, summed over parts and strata.
    """

    def __init__(self, counts: Sequence[_Change], shares: Sequence[float]) -> None:
        totals: Counter[int] = Counter()
        for entry in counts:
            totals.update(entry)
        self.excess = [{key: -share * total for key, total in totals.items()} for share in shares]
        self.expected = [{key: share * total for key, total in totals.items()} for share in shares]

    def cost(self, change: _Change, part: int) -> float:
        """What adding `change` to a part adds to the cost."""
        excess, expected = self.excess[part], self.expected[part]
        terms = [count * (2 * excess[key] + count) / expected[key] for key, count in change.items()]
        # Rounded, because sums in another order differ in the last bits, and ties must not depend on those.
        return round(sum(terms), 9)

    def costs(self, change: _Change) -> list[float]:
        """What adding `change` to each part adds to the cost."""
        return [self.cost(change, part) for part in range(len(self.excess))]

    def add(self, change: _Change, part: int, sign: int = 1) -> None:
        excess = self.excess[part]
        for key, count in change.items():
            excess[key] += sign * count


def deal(
    counts: Sequence[Counts],
    shares: Sequence[float],
    names: Sequence[str],
    seed: Hashable,
    everywhere: Sequence[Hashable] = (),
) -> list[int]:
    """Assign every group to a part.

    Args:
        counts: For each group, its number of images in each stratum.
        shares: The share of each part, positive, adding up to 1.
        names: For each group a name that depends on its content alone.
        seed: Which of the many good divisions is drawn.
        everywhere: Strata of which every part gets a group, where there are enough groups; otherwise a small share of a
            small stratum could be empty.

    Returns:
        The part of each group.
    """
    numbers: dict[Hashable, int] = {}
    # Groups often share one object.
    known = {id(entry): entry for entry in counts}
    as_changes = {
        key: {numbers.setdefault(stratum, len(numbers)): count for stratum, count in entry.items()}
        for key, entry in known.items()
    }
    changes = [as_changes[id(entry)] for entry in counts]
    sizes = {key: -sum(change.values()) for key, change in as_changes.items()}
    table = _Table(changes, shares)
    ranks = [rank(seed, name) for name in names]
    order = sorted(range(len(counts)), key=lambda i: (sizes[id(counts[i])], ranks[i]))
    parts = [0] * len(counts)
    for group in order:
        costs = table.costs(changes[group])
        best = min(costs)
        cheapest = [part for part, cost in enumerate(costs) if cost == best]
        parts[group] = min(cheapest, key=lambda part: rank(ranks[group], part)) if cheapest[1:] else cheapest[0]
        table.add(changes[group], parts[group])
    order.sort(key=lambda i: ranks[i])
    while _move(table, changes, parts, order) or (
        len(order) <= EXCHANGE_LIMIT and _exchange(table, changes, parts, order)
    ):
        pass
    for key in everywhere:
        number = numbers.get(key, -1)
        _reach_every_part(table, changes, parts, [group for group in order if changes[group].get(number)])
    return parts


def _move(table: _Table, counts: Sequence[_Change], parts: list[int], order: Sequence[int]) -> bool:
    moved = False
    # Groups of equal counts in one part are judged alike until another group moves.
    settled: set[tuple[int, int]] = set()
    for group in order:
        change, here = counts[group], parts[group]
        if (id(change), here) in settled:
            continue
        table.add(change, here, -1)
        costs = table.costs(change)
        best = min(costs)
        if best < costs[here] - _TINY:
            parts[group], moved = costs.index(best), True
            settled.clear()
        else:
            settled.add((id(change), here))
        table.add(change, parts[group])
    return moved


def _exchange(table: _Table, counts: Sequence[_Change], parts: list[int], order: Sequence[int]) -> bool:
    # Groups with equal counts are interchangeable: one pair of each kind of pair is tried.
    kinds: list[dict[frozenset[tuple[int, int]], list[int]]] = [{} for _ in table.excess]
    for group in order:
        kinds[parts[group]].setdefault(frozenset(counts[group].items()), []).append(group)
    for here, there in combinations(range(len(table.excess)), 2):
        for one, other in product(kinds[here], kinds[there]):
            if one == other:
                continue
            leaving, coming = dict(one), dict(other)
            change = {key: coming.get(key, 0) - leaving.get(key, 0) for key in leaving.keys() | coming.keys()}
            back = {key: -count for key, count in change.items()}
            if table.cost(change, here) + table.cost(back, there) < -_TINY:
                table.add(change, here)
                table.add(back, there)
                parts[kinds[here][one][0]], parts[kinds[there][other][0]] = there, here
                return True
    return False


def _reach_every_part(table: _Table, counts: Sequence[_Change], parts: list[int], holders: Sequence[int]) -> None:
    for part in range(len(table.excess)):
        held = Counter(parts[group] for group in holders)
        spare = [] if held[part] else [group for group in holders if held[parts[group]] > 1]
        if not spare:
            continue
        costs = []
        for group in spare:
            table.add(counts[group], parts[group], -1)
            costs.append(table.cost(counts[group], part) - table.cost(counts[group], parts[group]))
            table.add(counts[group], parts[group])
        moved = spare[costs.index(min(costs))]
        table.add(counts[moved], parts[moved], -1)
        table.add(counts[moved], part)
        parts[moved] = part
