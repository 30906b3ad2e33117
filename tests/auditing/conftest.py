"""ImageSet that were never read: noise, into which tests plant what an audit has to find."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from cxrtool.auditing.views import SIDE, ImageSet
from cxrtool.data.splitting.divider import Divider


@dataclass(frozen=True)
class Fold:
    """A fold, as the splits of a run give it."""

    repeat: str
    fold: str
    subsets: dict[str, list[int]] = field(default_factory=dict)


def _make_pictures(
    images: int = 120, classes: tuple[str, ...] = ("covid", "normal"), per_patient: int = 2, seed: int = 0
) -> ImageSet:
    """Noise with two lungs in it; labels go round the patients, two sources take turns within each label."""
    rng = np.random.default_rng(seed)
    lungs = np.zeros((images, SIDE, SIDE), np.float32)
    for i in range(images):
        top, left = rng.integers(12, 17), rng.integers(9, 12)
        lungs[i, top : top + 34, left : left + 17] = 1
        lungs[i, top : top + 32, 36:53] = 1
    thumbs = rng.normal(0.5, 0.1, (images, SIDE, SIDE)).astype(np.float32).clip(0, 1)
    rows = []
    for i in range(images):
        patient = i // per_patient
        rows.append(
            {
                "image_id": f"im{i:03}",
                "path": f"/nowhere/im{i:03}.png",
                "patient_id": f"p{patient:03}",
                "label": classes[patient % len(classes)],
                "source": "ab"[patient // len(classes) % 2],
                "width": "300",
                "height": "300",
                "bits": "8",
                "kind": "png",
            }
        )
    sides = np.full(images, 300)
    kinds, bits = ("png",) * images, np.full(images, 8)
    return ImageSet(tuple(rows), thumbs, lungs, sides, sides, bits, kinds, np.arange(images), "drawn")


def _make_folds(pictures: ImageSet, count: int = 3, repeats: int = 1, seed: int = 0) -> list[Fold]:
    divider = Divider(pictures.rows, seed=seed)
    place = {row["image_id"]: int(i) for row, i in zip(pictures.rows, pictures.index, strict=True)}
    folds = []
    for repeat in range(repeats):
        for number, placed in enumerate(divider.folds(count, 0.1, repeat)):
            fold = Fold(str(repeat), str(number), {"train": [], "validation": [], "test": []})
            for name, subset in placed.items():
                fold.subsets[subset].append(place[name])
            folds.append(fold)
    return folds


@pytest.fixture(scope="session")
def make_pictures() -> Callable[..., ImageSet]:
    return _make_pictures


@pytest.fixture(scope="session")
def make_folds() -> Callable[..., list[Fold]]:
    return _make_folds
