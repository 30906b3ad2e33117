"""Augmentation: one affine map per image, in batches on the device, then changes of grey values.

Rotation, shift, shear, zoom, stretch, pad, crop and flip are composed into one matrix, so that an image is interpolated
only once.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor

from cxrtool.errors import UsageError
from cxrtool.options import did_you_mean
from cxrtool.training.device import on_device
from cxrtool.training.randomness import uniforms

BLUR_SIZE = 9

DRAWS = (
    "angle",
    "shift_x",
    "shift_y",
    "shear",
    "zoom",
    "flip",
    "crop",
    "crop_x",
    "crop_y",
    "contrast",
    "brightness",
    "noise",
    "gate_rotate",
    "gate_shift",
    "gate_shear",
    "gate_zoom",
    "gate_crop",
    "gate_contrast",
    "gate_brightness",
    "gate_noise",
    "gate_blur",
    "stretch",
    "gate_stretch",
    "pad",
    "gate_pad",
    "zoom_x",
)
"""The use of each random number of an image. The order is fixed, so that one option never changes another."""


@dataclass(frozen=True)
class Augmentation:
    """The range of each transformation; 0 switches it off.

    Attributes:
        rotate: Degrees, drawn from [-rotate, rotate].
        shift: Share of the side, along each axis, from [-shift, shift].
        shear: Factor (the tangent of the angle) from [-shear, shear], along the rows.
        zoom: Magnification from [1 - zoom, 1 + zoom].
        stretch: Further magnification from top to bottom alone, from [1 - stretch, 1 + stretch].
        pad: Up to this share of the side is added at each edge, and the whole shrunk to its size again.
        crop: Up to this share of the side is cut away, at a random position, and the rest enlarged.
        flip: Probability of a horizontal flip.
        brightness: Added to values in [0, 1], from [-brightness, brightness].
        contrast: Factor about the image's mean, from [1 - contrast, 1 + contrast].
        blur: Standard deviation in pixels of a 9 x 9 Gaussian.
        noise: Standard deviation of Gaussian noise on values in [0, 1].
        keras: 1 takes `rotate`, `shift`, `shear` and `zoom` as Keras' ImageDataGenerator does. The coordinates of each
            axis are multiplied by a factor of its own from [1 - zoom, 1 + zoom]; the shear is along the columns, by an
            angle whose largest tangent is `shear`; the shift is along the axes of the rotated image.
        p: Probability with which each of them, except flip, is applied to an image.
    """

    rotate: float = 0.0
    shift: float = 0.0
    shear: float = 0.0
    zoom: float = 0.0
    stretch: float = 0.0
    pad: float = 0.0
    crop: float = 0.0
    flip: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    keras: float = 0.0
    p: float = 1.0

    @property
    def geometric(self) -> bool:
        """Whether an image is resampled."""
        return any((self.rotate, self.shift, self.shear, self.zoom, self.stretch, self.pad, self.crop, self.flip))

    @property
    def active(self) -> bool:
        """Whether anything is changed at all."""
        return self.geometric or any((self.brightness, self.contrast, self.blur, self.noise))

    def __str__(self) -> str:
        # repr, because with fewer digits it would be another augmentation.
        numbers = {name: repr(float(value)).removesuffix(".0") for name, value in asdict(self).items()}
        changed = [f"{name}={text}" for name, text in numbers.items() if text != ("1" if name == "p" else "0")]
        return ",".join(changed) if self.active else "none"


LIMITS = {
    "rotate": 180.0,
    "shift": 1.0,
    "shear": 2.0,
    "zoom": 0.95,
    "stretch": 0.95,
    "pad": 1.0,
    "crop": 0.9,
    "flip": 1.0,
    "brightness": 1.0,
    "contrast": 1.0,
    "blur": 4.0,
    "noise": 1.0,
    "keras": 1.0,
    "p": 1.0,
}


def parse(text: str) -> Augmentation:
    """Read `rotate=15,shift=0.2,flip=0.5`; `none` or an empty text changes nothing.

    >>> str(parse("rotate=15,flip=0.5"))
    'rotate=15,flip=0.5'

    Raises:
        UsageError: A name is unknown, or a value is not a number or out of range.
    """
    values: dict[str, float] = {}
    names = [entry.name for entry in fields(Augmentation)]
    for part in text.split(","):
        if part.strip() in ("", "none"):
            continue
        name, _, number = part.strip().partition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if name not in names:
            raise UsageError(f"--augment: expected {', '.join(names)}, found '{name}'{did_you_mean(name, names)}")
        if not 0.0 <= value <= LIMITS[name]:
            raise UsageError(f"--augment {name}: expected a number from 0 to {LIMITS[name]:g}, found '{number}'")
        if name == "keras" and value not in (0.0, 1.0):
            raise UsageError(f"--augment keras: expected 0 or 1, found '{number}'")
        values[name] = value
    return Augmentation(**values)


class Augmenter:
    """Applies an `Augmentation` to batches; the change of an image depends on seed, epoch and image only.

    Args:
        keys: One uint64 for each image of the store.
        size: Side of the images in pixels.
    """

    def __init__(self, recipe: Augmentation, keys: np.ndarray, seed: int, size: int, device: torch.device) -> None:
        self.recipe, self.keys, self.seed, self.size, self.device = recipe, keys, seed, size, device
        # Pixel centres in [-1, 1], as grid_sample counts without aligned corners.
        self._line = (torch.arange(size, device=device, dtype=torch.float32) * 2 + 1) / size - 1
        self._noise = self._noise_bank() if recipe.noise else None
        self._drawn: tuple[int, np.ndarray] | None = None

    def __call__(self, images: Tensor, indices: np.ndarray, epoch: int) -> Tensor:
        """Change images (B, C, S, S) of values in [0, 1]; `indices` are their indices in the store."""
        if not self.recipe.active:
            return images
        if self._drawn is None or self._drawn[0] != epoch:
            self._drawn = (epoch, uniforms(self.keys, epoch, len(DRAWS), self.seed, stream=1))
        draws = dict(zip(DRAWS, self._drawn[1][indices].T, strict=True))
        if self.recipe.geometric:
            images = self._sample(images, matrices(self.recipe, draws))
        return self._change_values(images, draws)

    def pair(self, images: Tensor, targets: Tensor, indices: np.ndarray, epochs: np.ndarray) -> tuple[Tensor, Tensor]:
        """Move images and targets (B, 1, S, S) by the same map, and change the grey values of the images only.

        Args:
            images: Values in [0, 1].
            targets: Such as masks.
            indices: Their indices in the store (B,).
            epochs: A number for each (B,), so that an image that is used twice in an epoch is changed in two ways.
        """
        if not self.recipe.active:
            return images, targets
        numbers = uniforms(self.keys[indices], epochs, len(DRAWS), self.seed, stream=1)
        draws = dict(zip(DRAWS, numbers.T, strict=True))
        if self.recipe.geometric:
            both = self._sample(torch.cat((images, targets), 1), matrices(self.recipe, draws))
            images, targets = both[:, :1], both[:, 1:]
        return self._change_values(images, draws), targets

    def _sample(self, images: Tensor, matrix: np.ndarray) -> Tensor:
        m = on_device(matrix.astype(np.float32), self.device)
        x, y = self._line[None, None, :], self._line[None, :, None]
        grid = torch.empty((len(images), self.size, self.size, 2), device=self.device)
        # affine_grid does the same by a matrix product, five times slower on a CPU.
        for axis in (0, 1):
            a, b, c = (m[:, axis, i][:, None, None] for i in range(3))
            torch.add(a * x, b * y + c, out=grid[..., axis])
        return functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)

    def _change_values(self, images: Tensor, draws: dict[str, np.ndarray]) -> Tensor:
        recipe = self.recipe

        def column(values: np.ndarray) -> Tensor:
            return on_device(values.astype(np.float32), self.device)[:, None, None, None]

        if recipe.blur:
            chosen = on_device(draws["gate_blur"] < recipe.p, self.device)
            images = torch.where(chosen[:, None, None, None], self._blurred(images), images)
        if recipe.contrast:
            mean = images.mean((1, 2, 3), keepdim=True)
            images = (images - mean) * column(1 + _reach(draws, "contrast", recipe.contrast, recipe.p)) + mean
        if recipe.brightness:
            images = images + column(_reach(draws, "brightness", recipe.brightness, recipe.p))
        if self._noise is not None:
            start = (draws["noise"] * (len(self._noise) - self.size**2)).astype(np.int64)
            where = on_device(start, self.device)[:, None] + torch.arange(self.size**2, device=self.device)
            strength = column(recipe.noise * (draws["gate_noise"] < recipe.p))
            images = images + self._noise[where].view(-1, 1, self.size, self.size) * strength
        if recipe.contrast or recipe.brightness or recipe.noise:
            images = images.clamp(0.0, 1.0)
        return images

    def _blurred(self, images: Tensor) -> Tensor:
        offsets = torch.arange(BLUR_SIZE, dtype=torch.float32) - BLUR_SIZE // 2
        # Far below a pixel there is nothing to blur, and the square of a tiny number is 0.
        kernel = torch.exp(-(offsets**2) / (2 * max(self.recipe.blur, 1e-3) ** 2))
        kernel = on_device(kernel / kernel.sum(), self.device)
        count = images.shape[1]
        padded = functional.pad(images, (BLUR_SIZE // 2,) * 4, mode="replicate")
        rows = functional.conv2d(padded, kernel.view(1, 1, 1, -1).expand(count, 1, 1, -1), groups=count)
        return functional.conv2d(rows, kernel.view(1, 1, -1, 1).expand(count, 1, -1, 1), groups=count)

    def _noise_bank(self) -> Tensor:
        # Each image takes a random part of one long row of numbers: to draw a number for every pixel would take
        # longer than a step of a small network.
        generator = torch.Generator().manual_seed(self.seed)
        return torch.randn(16 * self.size**2, generator=generator).to(self.device)


def _reach(draws: dict[str, np.ndarray], name: str, reach: float, p: float) -> np.ndarray:
    """Numbers from [-reach, reach], 0 where the gate is shut."""
    open_gate = draws[f"gate_{GATES.get(name, name)}"] < p
    result: np.ndarray = (2 * draws[name] - 1) * reach * open_gate
    return result


GATES = {"angle": "rotate", "shift_x": "shift", "shift_y": "shift", "zoom_x": "zoom"}
SHIFTS = ("shift_x", "shift_y")


def matrices(recipe: Augmentation, draws: dict[str, np.ndarray]) -> np.ndarray:
    """The maps from output to input coordinates, in [-1, 1] with x to the right and y down: shape (B, 2, 3).

    Args:
        recipe: The range of each transformation.
        draws: Uniform numbers (B,) for each name of `DRAWS`.
    """
    linear, shift, scale = (_keras_map if recipe.keras else _plain_map)(recipe, draws)
    cut = draws["crop"] * recipe.crop * (draws["gate_crop"] < recipe.p)
    border = draws["pad"] * recipe.pad * (draws["gate_pad"] < recipe.p)
    window = scale * (1.0 - cut)[:, None] * (1.0 + 2.0 * border)[:, None]
    window[:, 0] *= np.where(draws["flip"] < recipe.flip, -1.0, 1.0)
    window[:, 1] /= 1.0 + _reach(draws, "stretch", recipe.stretch, recipe.p)
    corner = np.stack((draws["crop_x"], draws["crop_y"]), 1)
    # A coordinate runs over two units, so that a share of the side is twice that.
    moved = 2 * shift + cut[:, None] * (2 * corner - 1)
    return np.concatenate((linear * window[:, None, :], moved[:, :, None]), 2)


Map = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Rotation and shear (B, 2, 2), the shift as a share of the side (B, 2), and the scale along each axis (B, 2)."""


def _plain_map(recipe: Augmentation, draws: dict[str, np.ndarray]) -> Map:
    """The same scale along both axes, a shear along the rows, and shifts along the axes of the input."""
    angle = np.deg2rad(_reach(draws, "angle", recipe.rotate, recipe.p))
    shear = _reach(draws, "shear", recipe.shear, recipe.p)
    scale = 1.0 / (1.0 + _reach(draws, "zoom", recipe.zoom, recipe.p))
    cosine, sine = np.cos(angle), np.sin(angle)
    linear = _by_image([[cosine, cosine * shear - sine], [sine, sine * shear + cosine]])
    return linear, _by_image([_reach(draws, name, recipe.shift, recipe.p) for name in SHIFTS]), _by_image([scale] * 2)


def _keras_map(recipe: Augmentation, draws: dict[str, np.ndarray]) -> Map:
    """The product of `keras_preprocessing`'s `apply_affine_transform`: rotation, shift, shear, zoom."""
    angle = np.deg2rad(_reach(draws, "angle", recipe.rotate, recipe.p))
    shear = _reach(draws, "shear", math.atan(recipe.shear), recipe.p)
    rotation = _by_image([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    shearing = _by_image([[np.ones_like(shear), -np.sin(shear)], [np.zeros_like(shear), np.cos(shear)]])
    shift = _by_image([_reach(draws, name, recipe.shift, recipe.p) for name in SHIFTS[::-1]])
    zoom = _by_image([1.0 + _reach(draws, name, recipe.zoom, recipe.p) for name in ("zoom_x", "zoom")])
    # Keras' first coordinate is the row, ours the column.
    linear, moved = rotation @ shearing, (rotation @ shift[:, :, None])[:, :, 0]
    return linear[:, ::-1, ::-1], moved[:, ::-1], zoom


def _by_image(values: list[Any]) -> np.ndarray:
    """Nested lists of arrays (B,) as one array (B, ...)."""
    return np.moveaxis(np.array(values), -1, 0)
