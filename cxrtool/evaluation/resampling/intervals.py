"""Intervals: percentiles over resamples of patients, and Wilson's interval where resampling fails.

An interval shows how much the metric would change with other test patients from the same source and the same trained
models. It does not cover other hospitals or another training.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxrtool.evaluation.metrics.confusion import FloatArray, IntArray
from cxrtool.evaluation.resampling.influence import Error

RESAMPLES = 2000
CONFIDENCE = 0.95
FEW_PATIENTS = 30
UNDEFINED_SHARE = 0.05
PATIENTS = "patient bootstrap"
IMAGES = "image bootstrap"
CENTRED = ", centred"
INFLUENCE_PATIENTS = "influence functions, patients as clusters"
INFLUENCE_IMAGES = "influence functions, one image a patient"
WILSON = "Wilson"
DRAWS_AT_ONCE = 1_000_000
DIGITS = 10
"""Decimals in `metrics.json`: further ones differ between processors."""


@dataclass(frozen=True)
class Measure:
    """A value with its uncertainty; `None` is undefined, with the reason.

    Attributes:
        low: Lower end of the 95 % interval.
        high: Upper end.
        method: Of the interval.
        sd_runs: Standard deviation (ddof 1) over the runs.
        sd_repeats: Standard deviation (ddof 1) over the repeats.
        reason: Why a value is missing, or a caveat.
        mean_runs: Mean over the runs, which papers print beside the standard deviation of the runs. The value itself
            is of all test images together, and differs from it where runs differ in size.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    method: str | None = None
    sd_runs: float | None = None
    sd_repeats: float | None = None
    reason: str | None = None
    mean_runs: float | None = None

    def as_json(self) -> dict[str, Any]:
        """The entry in `metrics.json`."""
        return {
            name: round(float(value), DIGITS) + 0.0 if isinstance(value, float) else value
            for name, value in asdict(self).items()
        }


def wilson(proportion: float, n: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927; Brown, Cai & DasGupta 2001 recommend it for small n).

    Args:
        proportion: Observed, in [0, 1]; not necessarily a multiple of 1/n.
        n: Number of independent observations, above 0.
        confidence: Nominal coverage.

    >>> low, high = wilson(8 / 10, 10)
    >>> round(low, 4), round(high, 4)
    (0.4902, 0.9433)
    """
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    centre = (proportion + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(proportion * (1 - proportion) / n + z * z / (4 * n * n))
    # At 0 and 1 one end is the proportion itself; without this, rounding would move it by 1e-17.
    return min(max(0.0, centre - half), proportion), max(min(1.0, centre + half), proportion)


def draw_patients(strata: IntArray, resamples: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Resample patients with replacement within each stratum (P,), so that every resample has as many of each label.

    Returns:
        (P, B) how often each patient is drawn.
    """
    counts = np.zeros((len(strata), resamples), np.uint8)
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        n = len(members)
        # Some resamples at once: the generator continues where it was, and the memory stays small.
        step = max(1, DRAWS_AT_ONCE // n)
        for begin in range(0, resamples, step):
            rows = min(step, resamples - begin)
            drawn = rng.integers(0, n, size=(rows, n))
            tally = np.bincount((drawn + n * np.arange(rows)[:, None]).ravel(), minlength=n * rows)
            counts[members, begin : begin + rows] = tally.reshape(rows, n).T
    return counts


def method_of(*, by_patient: bool, by_influence: bool = False) -> str:
    """The name of the method by which intervals of patients, or of images where no patient is known, are made."""
    if by_influence:
        return INFLUENCE_PATIENTS if by_patient else INFLUENCE_IMAGES
    return PATIENTS if by_patient else IMAGES


RATES = ("sensitivity", "specificity")
_ONE_SIDED = {"npv": "sensitivity", "ppv": "specificity", "precision": "specificity"}


def few_of(name: str, rates: Mapping[str, float], few: float = FEW_PATIENTS) -> float:
    """The number of patients below which a proportion gets Wilson's interval: any, where resamples hardly move it.

    Where no image of a class is recognised, each resample within label misses as many: only one of the two counts of
    the negative predictive value differs. The positive one is alike, where no other image is recognised.
    """
    return math.inf if rates.get(_ONE_SIDED.get(name, "")) == 0.0 else few


def measure(
    value: float,
    replicates: FloatArray | Error,
    *,
    patients: int,
    proportion: bool,
    noisy: bool = False,
    method: str = PATIENTS,
    few: float = FEW_PATIENTS,
    sd_runs: float = math.nan,
    sd_repeats: float = math.nan,
    mean_runs: float = math.nan,
    undefined: str = "",
    caveat: str = "",
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Measure:
    """A value with the interval from its resamples, or from its standard error.

    Args:
        value: NaN where undefined.
        replicates: (B,) the value in each resample, NaN where undefined there; or the standard error.
        patients: Patients in its denominator.
        proportion: Whether it is a proportion, for which Wilson's interval is used where resampling fails.
        noisy: Whether the value grows with the noise of a sample, like a calibration error. A resample is noisier than
            the sample, so its percentiles are above the value; they are moved back by the median difference.
        method: Name of the resampling.
        few: A proportion of fewer patients than this gets Wilson's interval.
        sd_runs: Standard deviation over runs, or NaN.
        sd_repeats: Standard deviation over repeats, or NaN.
        mean_runs: Mean over runs, or NaN; kept where there is a standard deviation over them.
        undefined: The reason if the value is undefined.
        caveat: The remark if the value is defined.
        bounds: The lowest and the highest possible value, where the ends from a standard error are cut.
    """
    if math.isnan(value):
        return Measure(reason=undefined or "undefined")
    runs, repeats = _known(sd_runs), _known(sd_repeats)
    found = Measure(value, sd_runs=runs, sd_repeats=repeats, mean_runs=None if runs is None else _known(mean_runs))
    reasons = [caveat] if caveat else []
    at_bound = proportion and (value <= 0.0 or value >= 1.0)
    if proportion and (at_bound or patients < few):
        low, high = wilson(min(max(value, 0.0), 1.0), patients)
        return replace(found, low=low, high=high, method=WILSON, reason="; ".join(reasons) or None)
    if isinstance(replicates, Error):
        half = reach(patients) * replicates.value
        if not half > 1e-12:
            reasons.append("no interval: no patient changes the value")
            return replace(found, reason="; ".join(reasons))
        if proportion and not 0 <= value - half <= value + half <= 1:
            # Close to 0 or 1 a symmetric interval does not fit.
            low, high = wilson(value, patients)
            return replace(found, low=low, high=high, method=WILSON, reason="; ".join(reasons) or None)
        low, high = max(value - half, bounds[0]), min(value + half, bounds[1])
        return replace(found, low=low, high=high, method=method, reason="; ".join(reasons) or None)
    defined = replicates[~np.isnan(replicates)]
    lost = len(replicates) - len(defined)
    if lost > UNDEFINED_SHARE * len(replicates) or not len(defined):
        reasons.append(f"no interval: undefined in {lost} of {len(replicates)} resamples")
        return replace(found, reason="; ".join(reasons))
    if np.ptp(defined) < 1e-12:
        reasons.append("no interval: the value is the same in every resample")
        return replace(found, reason="; ".join(reasons))
    if patients < FEW_PATIENTS:
        reasons.append(f"only {patients} {'images' if method == IMAGES else 'patients'}: the interval is approximate")
    low, high = (float(end) for end in np.percentile(defined, percents(patients)))
    if noisy:
        excess = float(np.median(defined)) - value
        low, high = max(low - excess, bounds[0]), min(high - excess, bounds[1])
        method += CENTRED
    return replace(found, low=low, high=high, method=method, reason="; ".join(reasons) or None)


@cache
def percents(patients: int) -> tuple[float, float]:
    """The percentiles of the resamples that are the ends of an interval.

    With few patients the spread of a resample is narrower than that of the population. The percentiles are moved
    outwards as far as Student's t is wider than the normal distribution (the expanded percentile interval of Hesterberg
    2015, "What Teachers Should Know About the Bootstrap").

    >>> [round(end, 2) for end in percents(40)], [round(end, 2) for end in percents(1000)]
    ([2.03, 97.97], [2.48, 97.52])
    """
    if patients < 2:
        return 50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)
    tail = 100 * NormalDist().cdf(-reach(patients))
    return tail, 100 - tail


def reach(patients: int) -> float:
    """Half the width of an interval in standard errors of a resample."""
    z, n = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2), patients - 1
    # Abramowitz & Stegun 26.7.5, because importing scipy is slow.
    student = z + (
        (z**3 + z) / (4 * n)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
    )
    return math.sqrt(patients / n) * student


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
