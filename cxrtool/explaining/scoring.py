"""How well a heatmap points at a reference: an outline of a finding, a device, a box.

- Energy: the share of the sum of the map inside the reference (Wang et al. 2020, "Score-CAM", section 4.3).
- Pointing: whether the highest value is inside (Zhang et al. 2018, "Top-down neural attention by excitation backprop").
- Average precision of the pixels as answers to "is it in the reference", as scikit-learn computes it: pixels of equal
  value have one precision. Of a map without any preference it is the prevalence.
- IoU at equal area: the reference against as many pixels as it has, the hottest ones.

Pixels of equal value are taken together, in proportion: three equal maxima of which one is inside point by 1/3, and of
the pixels at the edge of the hottest ones the same share is inside as among all of that value. So no score depends on
the order of pixels, and what chance reaches has a closed form: it is the score of a map that is 1 in the lungs and 0
elsewhere (or 1 everywhere), which prefers no pixel of them. Its energy and its pointing are the share of the lungs that
the reference covers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

EQUAL = 2e-6
"""Values that differ by less of the highest are equal: where a map was enlarged from few cells, whole regions differ by
nothing but rounding, which is another one in another batch."""


@dataclass(frozen=True)
class Scores:
    """The scores of a map against a reference, each from 0 to 1."""

    energy: float
    pointing: float
    average_precision: float
    iou: float


class Ranking:
    """The pixels of a map (h, w) >= 0, the hottest first, equal ones together.

    A map of zeros counts as one without any preference: the same value everywhere.
    """

    def __init__(self, values: NDArray[Any]) -> None:
        self.values = np.asarray(values if values.any() else np.ones_like(values), np.float64)
        levels, group = np.unique(-np.round(self.values / (EQUAL * self.values.max())), return_inverse=True)
        self._group = group.ravel()
        self._sizes = np.bincount(self._group, minlength=len(levels))

    def score(self, reference: NDArray[np.bool_]) -> Scores:
        """The scores against a reference (h, w) that is not empty."""
        area = int(reference.sum())
        inside = np.bincount(self._group[reference.ravel()], minlength=len(self._sizes))
        taken, found = np.cumsum(self._sizes), np.cumsum(inside)
        # The group at which as many pixels are taken as the reference has.
        edge = int(np.searchsorted(taken, area))
        surplus = int(taken[edge]) - area
        common = float(found[edge] - surplus * inside[edge] / self._sizes[edge])
        energy = self.values[reference].sum() / self.values.sum()
        return Scores(
            energy=float(energy),
            pointing=float(inside[0] / self._sizes[0]),
            average_precision=float((inside / area) @ (found / taken)),
            iou=common / (2 * area - common),
        )
