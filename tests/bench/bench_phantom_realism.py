"""Whether phantoms are as grey, as sharp and as rough as real radiographs: statistics of the pictures, side by side.

Every picture is taken as the tool reads it, as a share of the range of its data type (nothing is stretched), and
brought to 256 x 256 by area. `python bench_phantom_realism.py FOLDER` measures any folder of phantoms.
"""

import argparse
import csv
import hashlib
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from cxrtool.data.reading.images import read_image

SIDE = 256
BINS = 32
PERCENTILES = (5, 25, 50, 75, 95)
EDGE = 0.03
"""Grey levels a pixel, of a range of 1, above which a pixel counts as an edge: 2 to 30 % do in real radiographs."""
BAND = (4, 100)
"""Cycles an image over which the power spectrum is fitted."""
KNEE = 20
"""Where the band is parted: shapes of the body below, texture and noise above."""
COUNT = 200

LUNGS = ("lung mean", "lung minus rest", "lung gradient", "lung edges")
NAMES = (
    "mean", "SD", *(f"percentile {p}" for p in PERCENTILES), "black", "white", "gradient", "gradient over SD", "edges",
    *LUNGS, "slope", f"slope {BAND[0]}-{KNEE}", f"slope {KNEE}-{BAND[1]}", "misfit",
)  # fmt: skip
"""Statistics of a picture, in the order of the rows; those of the lungs are NaN without a mask."""
SETS = {
    "all real": ("covid", "child", "nih"),
    "covid set (all 336)": ("covid", "child"),
    "covid set, covid (adults)": ("covid",),
    "covid set, normal and pneumonia (children)": ("child",),
    "nih (adults)": ("nih",),
}
"""Sets of real radiographs, by the groups they hold."""


@dataclass
class Measured:
    """Statistics of pictures.

    Attributes:
        values: (N, len(NAMES)).
        histograms: (N, BINS) shares.
        groups: Where each picture comes from.
        patients: Whose it is.
        names: Its file.
        sides: Its smaller side in pixels, as read.
    """

    values: NDArray[np.float64]
    histograms: NDArray[np.float64]
    groups: NDArray[np.str_]
    patients: NDArray[np.str_]
    names: NDArray[np.str_]
    sides: NDArray[np.int64]

    def column(self, name: str) -> NDArray[np.float64]:
        return self.values[:, NAMES.index(name)]


@dataclass(frozen=True)
class Picture:
    """A file to measure, with its lung mask where there is one."""

    path: Path
    mask: Path | None
    group: str
    patient: str


def listed(folder: Path, group: str = "phantom") -> list[Picture]:
    """The pictures that a folder's metadata.csv names."""
    with (folder / "metadata.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [
        Picture(
            folder / (row.get("path") or row["file"]),
            folder / row["mask"] if row.get("mask") else None,
            group,
            row["patient_id"],
        )
        for row in rows
    ]


def listed_real(data: Path) -> list[Picture]:
    """The real radiographs, in the groups of `SETS`."""
    pictures = [
        Picture(entry.path, entry.mask, "covid" if entry.path.parent.name == "covid" else "child", entry.patient)
        for entry in listed(data / "covid-cxr-336")
    ]
    return pictures + listed(data / "nih-adults", "nih")


def shrunk(pixels: NDArray[np.integer]) -> NDArray[np.float32]:
    """A picture as (SIDE, SIDE) shares of its data type's range."""
    grey = pixels.astype(np.float32) / np.iinfo(pixels.dtype).max
    return cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA)


def gradient(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sobel's 3 x 3 gradient magnitude, divided by 8: grey levels a pixel."""
    across, down = cv2.Sobel(image, cv2.CV_32F, 1, 0), cv2.Sobel(image, cv2.CV_32F, 0, 1)
    return np.hypot(across, down) / 8


def radial_power(image: NDArray[np.float32]) -> NDArray[np.float64]:
    """Power at 0, 1, 2, ... cycles an image, averaged around; under a Hann window, the mean taken off before."""
    window = np.hanning(SIDE + 1)[:-1]
    spectrum = np.fft.fft2((image - image.mean()) * np.outer(window, window))
    cycles = np.fft.fftfreq(SIDE, 1 / SIDE)
    rings = np.rint(np.hypot(cycles[:, None], cycles)).astype(int).ravel()
    sums = np.bincount(rings, (np.abs(spectrum) ** 2).ravel())
    return sums[: SIDE // 2] / np.bincount(rings)[: SIDE // 2]


def fitted_slope(power: NDArray[np.float64], low: int, high: int) -> tuple[float, float]:
    """Slope of log power over log frequency, every ring the same weight; and the RMS of what the line leaves.

    The residual is in decades: a picture of pure noise above a smooth one bends away from any line.
    """
    x, y = np.log10(np.arange(low, high + 1)), np.log10(power[low : high + 1] + 1e-12)
    line = np.polyfit(x, y, 1)
    return float(line[0]), float(np.sqrt(np.mean((np.polyval(line, x) - y) ** 2)))


def describe(image: NDArray[np.float32], lungs: NDArray[np.bool_] | None) -> list[float]:
    """The statistics of a picture, in the order of `NAMES`."""
    slopes = gradient(image)
    power = radial_power(image)
    whole, misfit = fitted_slope(power, *BAND)
    inside = [np.nan] * len(LUNGS)
    if lungs is not None and lungs.any():
        apart = image[lungs].mean() - image[~lungs].mean()
        inside = [image[lungs].mean(), apart, slopes[lungs].mean(), (slopes[lungs] > EDGE).mean()]
    return [
        image.mean(), image.std(), *np.percentile(image, PERCENTILES), (image < 0.02).mean(), (image > 0.98).mean(),
        slopes.mean(), slopes.mean() / max(float(image.std()), 1e-6), (slopes > EDGE).mean(), *inside,
        whole, fitted_slope(power, BAND[0], KNEE)[0], fitted_slope(power, KNEE, BAND[1])[0], misfit,
    ]  # fmt: skip


def measure(pictures: Sequence[Picture]) -> Measured:
    values, histograms, sides = [], [], []
    for picture in pictures:
        pixels = read_image(picture.path).pixels
        image = shrunk(pixels)
        sides.append(min(pixels.shape))
        lungs = None
        if picture.mask is not None:
            lungs = shrunk(read_image(picture.mask).pixels) > 0.5
        values.append(describe(image, lungs))
        histograms.append(np.histogram(image, BINS, (0, 1))[0] / image.size)
    return Measured(
        np.array(values, np.float64),
        np.array(histograms),
        np.array([picture.group for picture in pictures]),
        np.array([picture.patient for picture in pictures]),
        np.array([picture.path.name for picture in pictures]),
        np.array(sides),
    )


def measure_real(data: Path) -> Measured:
    """The real side, kept in the temporary folder until files or this module change."""
    pictures = listed_real(data)
    told = [Path(__file__).read_text(encoding="utf-8"), *(f"{p.path} {p.path.stat().st_mtime_ns}" for p in pictures)]
    key = hashlib.sha256("\n".join(told).encode()).hexdigest()[:16]
    kept = Path(tempfile.gettempdir()) / f"cxrtool-realism-{key}.npz"
    if kept.is_file():
        with np.load(kept) as stored:
            return Measured(**stored)
    measured = measure(pictures)
    np.savez(kept, **vars(measured))
    return measured


def distances(ones: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Jensen-Shannon distances (base 2: 0 to 1) of every histogram to every other: (N, M)."""

    def entropy(shares: NDArray[np.float64]) -> NDArray[np.float64]:
        return -(shares * np.log2(np.where(shares > 0, shares, 1))).sum(-1)

    result = np.empty((len(ones), len(others)))
    for index, one in enumerate(ones):
        result[index] = entropy((one + others) / 2) - (entropy(one) + entropy(others)) / 2
    return np.sqrt(np.clip(result, 0, None))


def nearest(real: Measured, phantoms: Measured) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Histogram distance of each phantom to the nearest real one, and of each real one to the nearest of others.

    Other patients, that is: two pictures of one visit would make real ones look closer to each other than they are.
    """
    among = distances(real.histograms, real.histograms)
    among[real.patients[:, None] == real.patients] = np.inf
    return distances(phantoms.histograms, real.histograms).min(1), among.min(1)


def part(measured: Measured, groups: Sequence[str]) -> Measured:
    kept = np.isin(measured.groups, groups)
    return Measured(**{name: value[kept] for name, value in vars(measured).items()})


def row_of(name: str, real: NDArray[np.float64], drawn: NDArray[np.float64]) -> str:
    """One line of the table: the ranges of both sides, and where the phantoms lie in the real one."""
    real, drawn = real[~np.isnan(real)], drawn[~np.isnan(drawn)]
    if not len(real) or not len(drawn):
        return f"  {name:<18} not measured: no masks on one side"
    quantiles = [np.percentile(side, (0, 1, 50, 99, 100)) for side in (real, drawn)]
    low, first, _, last, high = quantiles[0]
    told = " |".join("".join(f"{value:8.3f}" for value in side) for side in quantiles)
    inside = np.mean((drawn >= low) & (drawn <= high)), np.mean((drawn >= first) & (drawn <= last))
    beside = f"{np.mean(drawn < first):5.0%} below{np.mean(drawn > last):5.0%} above"
    return f"  {name:<18}{told} |{inside[0]:7.1%}{inside[1]:7.1%} | {beside}"


def within(measured: Measured, real: Measured) -> NDArray[np.bool_]:
    """(N, len(NAMES)) whether each statistic lies within the real 1st to 99th percentile; one not measured does."""
    # Sets without a single mask say nothing of the lungs.
    known = np.where(np.isnan(real.values).all(0), 0, real.values)
    low, high = np.nanpercentile(known, (1, 99), axis=0)
    low, high = (np.where(np.isnan(real.values).all(0), np.nan, end) for end in (low, high))
    return ~((measured.values < low) | (measured.values > high))


def report(real: Measured, phantoms: Measured, sets: Sequence[str] = tuple(SETS)) -> None:
    """Print each set's table (left: real, right: phantoms), then the phantoms that are furthest from all real ones."""
    print(f"\nedge: Sobel/8 above {EDGE} a pixel at {SIDE} x {SIDE}; slopes over {BAND[0]}-{BAND[1]} cycles an image")
    small = [f"{np.mean(side.sides < SIDE):.0%} of {what}" for what, side in (("real", real), ("drawn", phantoms))]
    print(f"enlarged to {SIDE}, which leaves the highest frequencies empty: {small[0]}, {small[1]}")
    print("JS: Jensen-Shannon distance of a picture's histogram to the nearest of another real patient")
    for name in sets:
        chosen = part(real, SETS[name])
        print(f"\n{len(phantoms.values)} phantoms against {len(chosen.values)} real: {name}")
        ends = "".join(f"{end:>8}" for end in ("min", "1st", "50th", "99th", "max"))
        print(f"  {'':<18}{ends} |{ends} | in min..max, in 1st..99th")
        for column in NAMES:
            print(row_of(column, chosen.column(column), phantoms.column(column)))
        drawn, among = nearest(chosen, phantoms)
        print(row_of("JS to nearest", among, drawn))
        fits, own = (within(side, chosen).all(1).mean() for side in (phantoms, chosen))
        print(f"  within 1st..99th in everything at once: {fits:.1%} (of the real ones themselves {own:.1%})")
    fits = within(phantoms, real)
    reasons = Counter(NAMES[column] for column in np.nonzero(~fits)[1])
    print("\noutside the 1st..99th of all real ones, times: " + ", ".join(f"{n} {k}" for n, k in reasons.most_common()))
    worst = np.argsort(fits.sum(1), kind="stable")[:10]
    for index in worst[~fits[worst].all(1)]:
        missed = ", ".join(f"{NAMES[c]} {phantoms.values[index, c]:.3f}" for c in np.flatnonzero(~fits[index]))
        print(f"  {phantoms.names[index]}: {missed}")


def thin(pictures: Sequence[Picture], count: int) -> list[Picture]:
    """At most so many, evenly spread, because a table is ordered by class."""
    if len(pictures) <= count:
        return list(pictures)
    return [pictures[int(index)] for index in np.linspace(0, len(pictures) - 1, count)]


@pytest.mark.bench
def test_realism(real_data, phantoms):
    report(measure_real(real_data), measure(thin(listed(phantoms(COUNT)), COUNT)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("phantoms", type=Path)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[3] / "shared" / "data")
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--brief", action="store_true", help="the first set alone")
    given = parser.parse_args()
    drawings = measure(thin(listed(given.phantoms), given.count))
    report(measure_real(given.data), drawings, list(SETS)[:1] if given.brief else list(SETS))
