"""What phantoms teach about real lungs: a small U-Net that saw phantoms alone, against lungs that people outlined.

The network sees 128 x 128 pixels, each picture scaled by its own mean and deviation; Dice is taken at the size of the
outlined mask, without any clean-up. `python bench_phantom_lungs.py FOLDER` does the same for a folder of phantoms.
"""

import argparse
import csv
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from cxrtool.data.reading.images import read_image

SIDE = 128
COUNT = 1500
STEPS = 2000
BATCH = 16
HELD = 10
"""Every so many patients one is kept out of training."""


@dataclass
class Pictures:
    """Decoded pictures with their lungs.

    Attributes:
        images: (N, SIDE, SIDE) uint8.
        masks: (N, SIDE, SIDE) uint8, 0 to 255.
        files: Image and mask of each.
        patients: Whose it is.
    """

    images: Tensor
    masks: Tensor
    files: list[tuple[Path, Path]]
    patients: list[str]

    def part(self, wanted: Sequence[int]) -> "Pictures":
        chosen = [int(index) for index in wanted]
        return Pictures(
            self.images[chosen], self.masks[chosen], [self.files[i] for i in chosen], [self.patients[i] for i in chosen]
        )


def grey(path: Path, side: int = 0) -> NDArray[np.uint8]:
    """A picture of 8 bits, squashed to a square if a side is given."""
    pixels = read_image(path).pixels
    if side:
        pixels = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA)
    return (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels


def read(folder: Path, count: int = 0) -> Pictures:
    """The pictures of a folder's metadata.csv that have a mask; at most so many, evenly spread."""
    with (folder / "metadata.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row.get("mask")]
    if 0 < count < len(rows):
        rows = [rows[int(index)] for index in np.linspace(0, len(rows) - 1, count)]
    files = [(folder / (row.get("path") or row["file"]), folder / row["mask"]) for row in rows]
    images = np.stack([grey(image, SIDE) for image, _ in files])
    masks = np.stack([grey(mask, SIDE) for _, mask in files])
    return Pictures(torch.from_numpy(images), torch.from_numpy(masks), files, [row["patient_id"] for row in rows])


class Block(nn.Sequential):
    """Two convolutions. Groups are normalised, not batches, whose statistics would be the phantoms'."""

    def __init__(self, before: int, after: int):
        layers: list[nn.Module] = []
        for channels in (before, after):
            layers += [nn.Conv2d(channels, after, 3, padding=1, bias=False), nn.GroupNorm(8, after), nn.SiLU(True)]
        super().__init__(*layers)


class UNet(nn.Module):
    """A U-Net that works at half the resolution of its input, since lungs have no finer shape."""

    def __init__(self, widths: Sequence[int] = (16, 32, 64, 96, 128)):
        super().__init__()
        self.down = nn.ModuleList(Block(a, b) for a, b in zip((4, *widths[:-1]), widths, strict=True))
        self.up = nn.ModuleList(Block(a + b, b) for a, b in zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.head = nn.Conv2d(widths[0], 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, 1, SIDE, SIDE) of images of the same shape."""
        features, kept = functional.pixel_unshuffle(images, 2), []
        for index, block in enumerate(self.down):
            features = block(functional.avg_pool2d(features, 2) if index else features)
            kept.append(features)
        kept.pop()
        for block in self.up:
            features = functional.interpolate(features, scale_factor=2, mode="nearest")
            features = block(torch.cat((features, kept.pop()), 1))
        return functional.interpolate(self.head(features), scale_factor=2, mode="bilinear", align_corners=False)


def uniform(rng: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=rng)


def moved(images: Tensor, masks: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mirror, turn, shear, scale and shift; a scale under 1 crops the picture."""
    n = len(images)
    turn, shear = uniform(rng, -0.25, 0.25, n), uniform(rng, -0.12, 0.12, n)
    scale, aspect = uniform(rng, 0.7, 1.3, n), uniform(rng, -0.15, 0.15, n).exp()
    mirror = torch.where(torch.rand(n, generator=rng) < 0.5, -1.0, 1.0)
    rows = (
        (mirror * scale * aspect * turn.cos(), scale * (shear - turn.sin()), uniform(rng, -0.2, 0.2, n)),
        (mirror * scale * turn.sin(), scale / aspect * turn.cos(), uniform(rng, -0.2, 0.2, n)),
    )
    theta = torch.stack([torch.stack(row, 1) for row in rows], 1)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    # Beyond the edge some sources show black, others more of the body.
    black = functional.grid_sample(images, grid, align_corners=False)
    body = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    images = torch.where(torch.rand(n, 1, 1, 1, generator=rng) < 0.5, black, body)
    return images, functional.grid_sample(masks, grid, align_corners=False)


def field(n: int, cells: int, rng: torch.Generator) -> Tensor:
    """Smooth random fields of about unit deviation: (n, 1, SIDE, SIDE)."""
    coarse = torch.randn(n, 1, cells, cells, generator=rng)
    return functional.interpolate(coarse, (SIDE, SIDE), mode="bicubic", align_corners=True)


def blurred(images: Tensor, rng: torch.Generator) -> Tensor:
    """Blur half of the pictures by up to 1.5 pixels, and sharpen a quarter of them."""
    n = len(images)
    reach = torch.arange(-4.0, 5.0)
    sigma = uniform(rng, 0.3, 1.5, n, 1)
    kernel = torch.softmax(-(reach**2) / (2 * sigma**2), 1)
    padded = functional.pad(images.transpose(0, 1), (4, 4, 4, 4), mode="reflect")
    across = functional.conv2d(padded, kernel[:, None, None, :], groups=n)
    smooth = functional.conv2d(across, kernel[:, None, :, None], groups=n).transpose(0, 1)
    chance = torch.rand(n, 1, 1, 1, generator=rng)
    sharp = images + uniform(rng, 0.5, 2.0, n, 1, 1, 1) * (images - smooth)
    return torch.where(chance < 0.5, smooth, torch.where(chance < 0.75, sharp, images))


def covered(images: Tensor, rng: torch.Generator) -> Tensor:
    """Lay boxes (plates, burnt-in text, collimators) and lines (cables, tubes) over the pictures."""
    n = len(images)
    y, x = torch.meshgrid(torch.arange(SIDE) / SIDE, torch.arange(SIDE) / SIDE, indexing="ij")
    for _ in range(2):
        left, top, wide, high = (uniform(rng, low, reach, n, 1, 1, 1) for low, reach in ((-0.1, 1), (-0.1, 1)) * 2)
        box = ((x - left).abs() < wide.abs() * 0.2) & ((y - top).abs() < high.abs() * 0.2)
        box &= torch.rand(n, 1, 1, 1, generator=rng) < 0.3
        opaque = uniform(rng, 0.3, 1.0, n, 1, 1, 1)
        images = torch.where(box, images * (1 - opaque) + opaque * uniform(rng, 0, 1, n, 1, 1, 1), images)
    for _ in range(2):
        angle, offset, bend = (uniform(rng, *ends, n, 1, 1, 1) for ends in ((0, 3.1416), (-0.4, 0.4), (-0.6, 0.6)))
        along = (x - 0.5) * angle.cos() + (y - 0.5) * angle.sin()
        beside = (y - 0.5) * angle.cos() - (x - 0.5) * angle.sin() - offset - bend * along**2
        line = beside.abs() < uniform(rng, 0.004, 0.012, n, 1, 1, 1)
        line &= torch.rand(n, 1, 1, 1, generator=rng) < 0.3
        images = torch.where(line, images + uniform(rng, -0.2, 0.6, n, 1, 1, 1), images)
    return images


def toned(images: Tensor, rng: torch.Generator) -> Tensor:
    """Change the tone curve, contrast and brightness, the latter also from place to place, and add grain."""
    n = len(images)
    images = images.clamp(0, 1) ** uniform(rng, -0.8, 0.8, n, 1, 1, 1).exp()
    images = (
        images
        + uniform(rng, 0, 0.15, n, 1, 1, 1) * field(n, 4, rng)
        + uniform(rng, 0, 0.2, n, 1, 1, 1) * field(n, 2, rng)
    )
    images = images * (uniform(rng, 0, 0.3, n, 1, 1, 1) * field(n, 3, rng)).exp()
    middle = images.mean((1, 2, 3), keepdim=True)
    images = (images - middle) * uniform(rng, 0.6, 1.8, n, 1, 1, 1) + middle + uniform(rng, -0.15, 0.15, n, 1, 1, 1)
    grain = torch.randn(images.shape, generator=rng) * uniform(rng, 0, 0.06, n, 1, 1, 1)
    # A window cuts off what lies beyond its ends.
    return (images + grain).clamp(0, 1)


def normalised(images: Tensor) -> Tensor:
    deviation, mean = torch.std_mean(images, (1, 2, 3), keepdim=True)
    return (images - mean) / deviation.clamp_min(1e-3)


def batch_of(pictures: Pictures, chosen: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    images = pictures.images[chosen][:, None].float() / 255
    masks = pictures.masks[chosen][:, None].float() / 255
    images, masks = moved(images, masks, rng)
    return normalised(covered(toned(blurred(images, rng), rng), rng)), masks


def loss_of(logits: Tensor, masks: Tensor) -> Tensor:
    """Cross-entropy and one minus the soft Dice."""
    shares = logits.sigmoid()
    overlap = (shares * masks).sum((1, 2, 3))
    dice = (2 * overlap + 1) / (shares.sum((1, 2, 3)) + masks.sum((1, 2, 3)) + 1)
    return functional.binary_cross_entropy_with_logits(logits, masks) + (1 - dice).mean()


def train(pictures: Pictures, steps: int = STEPS, seed: int = 0) -> UNet:
    """Train on the pictures; the network given back has the running mean of the weights."""
    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    network = UNet()
    mean = torch.optim.swa_utils.AveragedModel(network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.99))
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.1)
    network.train()
    start, told = time.process_time(), []
    for step in range(steps):
        chosen = torch.randint(len(pictures.images), (BATCH,), generator=rng)
        images, masks = batch_of(pictures, chosen, rng)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(images)
        loss = loss_of(logits.float(), masks)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        mean.update_parameters(network)
        told.append(loss.item())
        if (step + 1) % max(steps // 8, 1) == 0:
            spent = time.process_time() - start
            print(f"  step {step + 1}: loss {np.mean(told[-100:]):.4f}, {spent:.0f} CPU seconds", flush=True)
    return mean.module.eval()


@torch.inference_mode()
def found(network: UNet, images: Tensor) -> NDArray[np.float32]:
    """Probability of lung, (N, SIDE, SIDE): mean of the picture's and its mirror image's."""
    result = []
    for chunk in images.split(64):
        inputs = normalised(chunk[:, None].float() / 255)
        result.append((network(inputs).sigmoid() + network(inputs.flip(3)).sigmoid().flip(3))[:, 0] / 2)
    return torch.cat(result).numpy()


def outline(share: NDArray[np.float32], mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """What was found, at the size of the outlined mask."""
    return cv2.resize(share, mask.shape[::-1], interpolation=cv2.INTER_LINEAR) > 0.5


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Dice's coefficient; two that are both empty agree."""
    both = int(one.sum()) + int(other.sum())
    return 2 * float((one & other).sum()) / both if both else 1.0


def dices(network: UNet, pictures: Pictures) -> NDArray[np.float64]:
    """Dice of each picture, at the size of its mask."""
    shares = found(network, pictures.images)
    masks = (grey(mask) for _, mask in pictures.files)
    return np.array([dice(outline(share, mask), mask > 127) for share, mask in zip(shares, masks, strict=True)])


def sheet(network: UNet, pictures: Pictures, scores: NDArray[np.float64], target: Path, count: int = 24) -> None:
    """Draw the pictures with the lowest Dice: what people outlined in green, what was found in red."""
    side, tiles = 320, []
    worst = np.argsort(scores, kind="stable")[:count]
    for index, share in zip(worst, found(network, pictures.images[worst]), strict=True):
        image, mask = (
            cv2.resize(grey(path), (side, side), interpolation=cv2.INTER_AREA) for path in pictures.files[index]
        )
        tile = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
        for region, colour in ((mask > 127, (0, 220, 0)), (outline(share, mask), (40, 40, 255))):
            edges, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(tile, edges, -1, colour, 2)
        text = f"{scores[index]:.3f} {pictures.files[index][0].stem[:28]}"
        cv2.rectangle(tile, (0, 0), (side, 16), (0, 0, 0), -1)
        cv2.putText(tile, text, (3, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255, 255, 255), 1, cv2.LINE_AA)
        tiles.append(tile)
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % 6)
    cv2.imwrite(str(target), np.vstack([np.hstack(tiles[i : i + 6]) for i in range(0, len(tiles), 6)]))


def report(what: str, pictures: Pictures, scores: NDArray[np.float64], worst: int = 10) -> None:
    low, quarter = scores.min(), np.percentile(scores, 25)
    print(
        f"{what}: {len(scores)} pictures, Dice mean {scores.mean():.4f}, median {np.median(scores):.4f}, "
        f"first quartile {quarter:.4f}, min {low:.4f}"
    )
    empty = (pictures.masks > 127).sum((1, 2)).numpy() == 0
    if empty.any():
        print(f"  without the {empty.sum()} in which people outlined no lung: mean {scores[~empty].mean():.4f}")
    for index in np.argsort(scores, kind="stable")[:worst]:
        print(f"  {scores[index]:.4f}  {pictures.files[index][0].name}{' (no lung outlined)' if empty[index] else ''}")


def learn_and_look(
    folder: Path, data: Path, target: Path, count: int = COUNT, steps: int = STEPS, seed: int = 0
) -> None:
    """Train on the phantoms of a folder, but for a tenth of its patients, and report on these and on real lungs."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    drawn, real = read(folder, count), read(data / "covid-cxr-336")
    names = {name: index for index, name in enumerate(dict.fromkeys(drawn.patients))}
    held = np.array([names[name] % HELD == HELD - 1 for name in drawn.patients])
    training, testing = drawn.part(np.flatnonzero(~held)), drawn.part(np.flatnonzero(held))
    size = sum(weights.numel() for weights in UNet().parameters())
    print(f"\nU-Net of {size:,} weights, {steps} steps of {BATCH} out of {len(training.files)} phantoms, seed {seed}")
    network = train(training, steps, seed)
    report("phantoms kept out", testing, dices(network, testing), 3)
    scores = dices(network, real)
    report("real", real, scores)
    sheet(network, real, scores, target)
    print(f"worst: {target} (green: people, red: found)")


@pytest.mark.bench
def test_lungs(real_data, phantoms, tmp_path):
    threads = torch.get_num_threads(), cv2.getNumThreads()
    try:
        learn_and_look(phantoms(COUNT), real_data, tmp_path / "worst.png")
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("phantoms", type=Path)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[3] / "shared" / "data")
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, default=Path("worst.png"), help="where to draw the worst 24")
    given = parser.parse_args()
    learn_and_look(given.phantoms, given.data, given.out, given.count, given.steps, given.seed)
