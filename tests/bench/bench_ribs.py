"""What a rib part takes off, what it leaves, and how near it comes to another one: `python bench_ribs.py PART`.

On phantoms, whose true picture without ribs is known, inside the lungs:

- rib contrast removed: the slope of (before - after) on the true rib layer, 1 when all is removed;
- rib energy removed: 1 - sum (rib layer - removed)^2 / sum (rib layer)^2, which collateral damage lowers too;
- texture kept: between the ribs, the correlation of the picture's finer part (without its blur by 1/48 of its side)
  before and after, and its standard deviation after over that before.

On any pictures, with `--teacher PART`: correlation, PSNR and mean absolute difference of both answers, in levels of
255, inside the lungs; and the share of what the teacher takes off there that the part takes off (the same slope).
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch

from cxrtool.cli.main import run
from cxrtool.data.reading.images import read_image
from cxrtool.data.tables.manifest import read_table
from cxrtool.flow.folder import AT
from cxrtool.flow.replaying import find_lungs, replay_suppress_ribs
from cxrtool.models.parts import default_part, read_part

FINE = 48
BETWEEN = 0.15
"""Below this share of its 95th percentile the rib layer counts as absent."""

SUFFIXES = {".png", ".jpg", ".jpeg"}


def eight(pixels: np.ndarray) -> np.ndarray:
    """Levels of 255, as floats."""
    return pixels / (np.iinfo(pixels.dtype).max / 255)


def answer(place: Path, pixels: np.ndarray) -> np.ndarray:
    return replay_suppress_ribs(pixels, {AT: str(place)})


def slope(removed: np.ndarray, layer: np.ndarray) -> float:
    return float(np.cov(removed, layer)[0, 1] / layer.var(ddof=1))


def fine(values: np.ndarray) -> np.ndarray:
    return values - cv2.GaussianBlur(values, (0, 0), max(values.shape) / FINE)


def against_truth(pixels: np.ndarray, result: np.ndarray, truth: np.ndarray, lungs: np.ndarray) -> dict[str, float]:
    before, after, bare = eight(pixels), eight(result), eight(truth)
    layer, removed = (before - bare)[lungs], (before - after)[lungs]
    # A change of the mean is brightness, not ribs.
    layer, removed = layer - layer.mean(), removed - removed.mean()
    strength = np.abs(before - bare)
    free = lungs & (cv2.dilate(strength, np.ones((5, 5))) < BETWEEN * np.quantile(strength[lungs], 0.95))
    found = {"contrast": slope(removed, layer), "energy": float(1 - ((layer - removed) ** 2).sum() / (layer**2).sum())}
    if free.sum() > 200:
        one, other = fine(before)[free], fine(after)[free]
        found["texture"] = float(np.corrcoef(one, other)[0, 1])
        found["strength"] = float(other.std() / one.std())
    return found


def against_teacher(pixels: np.ndarray, result: np.ndarray, wanted: np.ndarray, lungs: np.ndarray) -> dict[str, float]:
    before, after, goal = (eight(picture)[lungs] for picture in (pixels, result, wanted))
    return {
        "correlation": float(np.corrcoef(after, goal)[0, 1]),
        "psnr": float(10 * np.log10(255**2 / max(((after - goal) ** 2).mean(), 1e-9))),
        "difference": float(np.abs(after - goal).mean()),
        "share": slope(before - after, before - goal),
    }


def phantoms(folder: Path) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Picture, the same without ribs, and lungs, of raw phantoms."""
    for row in read_table(folder / "metadata.csv").rows:
        path = folder / row["path"]
        bare = folder / "truth" / f"{path.stem}_ribless.png"
        if bare.is_file() and row.get("mask"):
            pixels, truth = read_image(path).pixels, read_image(bare).pixels
            lungs = read_image(folder / row["mask"]).pixels > 0
            if pixels.shape == truth.shape == lungs.shape:
                yield pixels, truth, lungs


def pictures(folder: Path, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pictures spread over a folder, with what the shipped lung network finds."""
    part = default_part("lungs")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    for path in files[:: max(1, len(files) // count)][:count]:
        pixels = read_image(path).pixels
        lungs, _ = find_lungs(pixels, {AT: str(part.folder), "threshold": 0.5})
        if lungs.any():
            yield pixels, lungs > 0


def tell(what: str, found: list[dict[str, float]]) -> None:
    print(f"{what}: {len(found)} pictures")
    for name in dict.fromkeys(name for figures in found for name in figures):
        values = [figures[name] for figures in found if name in figures]
        low, middle, high = np.quantile(values, [0.1, 0.5, 0.9])
        print(f"  {name:<12} median {middle:.3f}   10th to 90th percentile {low:.3f} to {high:.3f}")


def measure(place: Path, teacher: Path | None, drawn: Path, real: Path | None, count: int) -> None:
    truths, likes = [], []
    for pixels, truth, lungs in phantoms(drawn):
        result = answer(place, pixels)
        truths.append(against_truth(pixels, result, truth, lungs))
        if teacher:
            likes.append(against_teacher(pixels, result, answer(teacher, pixels), lungs))
    tell("phantoms, against the truth", truths)
    if teacher:
        tell("phantoms, against the teacher", likes)
        if real:
            near = [
                against_teacher(pixels, answer(place, pixels), answer(teacher, pixels), lungs)
                for pixels, lungs in pictures(real, count)
            ]
            tell(f"{real}, against the teacher", near)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("part", type=Path)
    parser.add_argument("--teacher", type=Path)
    parser.add_argument("--phantoms", type=Path, help="a folder of `cxrtool phantom`; without it 24 are drawn")
    parser.add_argument("--real", type=Path, help="a folder of radiographs")
    parser.add_argument("--count", type=int, default=24, help="how many of them")
    told = parser.parse_args()
    torch.set_num_threads(1)
    for place in filter(None, (told.part, told.teacher)):
        part = read_part(place, "ribs")
        print(f"{place}: {part.network}, {part.form.size} pixels")
    with tempfile.TemporaryDirectory() as scratch:
        drawn = told.phantoms
        if drawn is None:
            drawn = Path(scratch) / "phantoms"
            if run(["phantom", "--count", "24", "--size", "512", "--seed", "77", "-q", "-o", str(drawn)]):
                sys.exit(1)
        measure(told.part, told.teacher, drawn, told.real, told.count)


if __name__ == "__main__":
    main()
