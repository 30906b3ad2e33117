"""`segment` against the bare forward pass of its network on the same images, already in memory and in its form.

Both take the same batches on the same threads, in turns, because other programs slow both. `segment` reads files,
cleans and writes masks, draws contact sheets and starts its processes, all of which counts. Beside the ratio by the
clock, which wants a free processor for each worker, stands that of the main process's own time, which is what a machine
with processors to spare comes to. `python bench_segment.py FOLDER` does it for a folder of prepared images.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cxrtool.cli.main import run
from cxrtool.data.reading.images import read_image
from cxrtool.data.tables.manifest import Manifest, read_manifest, write_manifest
from cxrtool.flow.segmenting import SegmentOptions, make_entry, segment
from cxrtool.flow.segmenting.images import IMAGES, MASKS, REFERENCES, Task, Way, finish_one, prepare_one
from cxrtool.flow.settings import Settings
from cxrtool.imaging.view import see
from cxrtool.models.lungs import NETWORKS
from cxrtool.models.parts import SHIPPED, Part, read_part, save_part
from cxrtool.training.device import local_randomness
from cxrtool.training.lung_finder import LungFinder

SIDE, DRAWN, BATCH, ROUNDS = 512, 48, 16, 2
COUNTS = {"unet": 1536, "unet-imlab": 192}
"""Images a round: enough that the start of the processes weighs little, as it does in a real data set."""

WANTED = 0.85
PROCESSORS = os.cpu_count() or 1


def part_of(network: str, folder: Path) -> Part:
    """The shipped part of a network, else one that has learnt nothing, which computes as long."""
    shipped = SHIPPED / "lungs-default"
    if shipped.is_dir() and read_part(shipped, "lungs").network == network:
        return read_part(shipped, "lungs")
    known = NETWORKS[network]
    module = known.build().eval()
    save_part(folder / network, "lungs", network, module, known.form, {})
    return read_part(folder / network, "lungs")


def repeated(manifest: Manifest, count: int, target: Path) -> Path:
    """A manifest of so many images out of a few, each under several names."""
    drawn = manifest.rows[:DRAWN]
    rows = [{**drawn[k % len(drawn)], "image_id": f"im{k:05}", "mask": ""} for k in range(count)]
    write_manifest(target, manifest.columns, rows)
    return target


def own_time(manifest: Manifest, part: Part, options: SegmentOptions, scratch: Path) -> float:
    """Processor seconds that a worker spends on an image before and after the network."""
    entry = make_entry(options, part, "fp32")
    way = Way(scratch / "alone", part.form, entry, None, part.description.get("usual"))
    for name in (IMAGES, MASKS, REFERENCES):
        (way.target / name).mkdir(parents=True, exist_ok=True)
    tasks = [Task(row["image_id"], row["path"], "", row["sha256"]) for row in manifest.rows[:DRAWN]]
    answers = np.zeros((part.form.size, part.form.size), np.float32)
    answers[40:200, 30:100] = answers[40:200, 150:220] = 1
    start = time.process_time()
    for task in tasks:
        finish_one((prepare_one(task, way=way), answers), way=way)
    return (time.process_time() - start) / len(tasks)


def ceiling(bare: np.ndarray, shared: float, count: int) -> float:
    """The ratio where no processor is ever idle: the network and the workers share them."""
    forward = bare / count / ROUNDS
    return min(1.0, forward[0] * PROCESSORS / (forward[1] + shared))


def bare(finder: LungFinder, values: torch.Tensor) -> None:
    """The network alone."""
    with torch.inference_mode():
        for batch in values.split(BATCH):
            finder.network(batch)


def timed(call: Callable[[], object]) -> np.ndarray:
    """Seconds by the clock, and of this process's own time."""
    start = time.perf_counter(), time.process_time()
    call()
    return np.array([time.perf_counter() - start[0], time.process_time() - start[1]])


def measure(network: str, source: Path, scratch: Path, settings: Settings, **changes) -> float:
    """Print and give back the ratio: images a second of `segment` over those of the bare network."""
    part, count = part_of(network, scratch), COUNTS[network]
    manifest = read_manifest(repeated(read_manifest(source), count, scratch / f"{network}.csv"))
    files = {row["path"]: see(read_image(row["path"]).pixels, part.form).values for row in manifest.rows[:DRAWN]}
    values = torch.from_numpy(np.stack([files[row["path"]] for row in manifest.rows])).unsqueeze(1)
    values = values.contiguous(memory_format=torch.channels_last)
    options = SegmentOptions(manifest.origin, part.folder, batch_size=BATCH, **changes)
    spent = {"bare": [], "segment": []}
    with local_randomness(0, settings.threads):
        finder = LungFinder(part.folder)
        bare(finder, values[: 2 * BATCH])
        for turn in range(ROUNDS):
            told = replace(settings, out=scratch / f"{network}-out", force=turn > 0)
            spent["bare"].append(timed(lambda: bare(finder, values)))
            spent["segment"].append(timed(lambda told=told: segment(options, told)))
    shared = own_time(manifest, part, options, scratch)
    seconds = {name: np.sum(found, 0) for name, found in spent.items()}
    rates = {name: count * ROUNDS / found[0] for name, found in seconds.items()}
    ratio, own = seconds["bare"] / seconds["segment"]
    sys.stdout.write(
        f"\n{network}{' ' + str(changes) if changes else ''}, {settings.threads} threads, {settings.workers} workers: "
        f"bare {rates['bare']:.1f} images/s, segment {rates['segment']:.1f}: {ratio:.3f} (wanted at least {WANTED}); "
        f"by the main process's own time {own:.3f}; reading and writing take {shared * 1e3:.1f} ms an image of a "
        f"processor, so {PROCESSORS} of them allow for {ceiling(seconds['bare'], shared, count):.3f}\n"
    )
    return ratio


@pytest.mark.bench
@pytest.mark.parametrize("network", COUNTS)
def test_segment(network, tmp_path):
    folder = tmp_path / "phantoms"
    assert run(["phantom", "--count", str(DRAWN), "--size", str(SIDE), "-q", "-o", str(folder)]) == 0
    assert run(["prepare", str(folder / "metadata.csv"), "--dataset", "csv", "-q", "-o", str(tmp_path / "prep")]) == 0
    measure(network, tmp_path / "prep", tmp_path, Settings())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prepared", type=Path)
    parser.add_argument("--network", choices=COUNTS, default="unet")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--crop", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        told = Settings(threads=given.threads, workers=given.workers)
        measure(given.network, given.prepared, Path(scratch), told, **({"crop": True} if given.crop else {}))
