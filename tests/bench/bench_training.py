"""Training throughput over the same network on one fixed batch that is on the device already."""

import statistics
import time

import numpy as np
import pytest
import torch

from cxrtool.models.architecture import Architecture
from cxrtool.models.registry import build, input_form
from cxrtool.training.augment import Augmenter, parse
from cxrtool.training.classifier_losses import cross_entropy
from cxrtool.training.device import autocast, choose_device, choose_precision, keep_freed_memory, local_randomness
from cxrtool.training.engine import Fit, Loop
from cxrtool.training.features import ImageSource, Normalisation
from cxrtool.training.options import TrainingOptions
from cxrtool.training.presets import PRESETS
from cxrtool.training.randomness import image_keys
from cxrtool.training.store import Store

ROUNDS = 9

CASES = {
    # Network: side in pixels, images a batch, batches a round.
    "covid-xnet": (128, 32, 12),
    "mobilenetv2_100": (224, 16, 6),
}


@pytest.mark.bench
@pytest.mark.parametrize("name", CASES)
def test_throughput_over_a_fixed_batch(name, tmp_path):
    size, batch, batches = CASES[name]
    count = batch * batches
    options = TrainingOptions.of(preset=name if name in PRESETS else None, batch_size=batch)
    recipe = options.fitting()
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, count)
    device = choose_device("auto")
    precision = choose_precision("auto", device)
    keep_freed_memory()
    with local_randomness(0, torch.get_num_threads()):
        network, _ = build(Architecture(name, 3, size=size))
        network.to(device, memory_format=torch.channels_last)
        images = generator.integers(0, 256, (count, size, size), dtype=np.uint8)
        store = Store(images, [""] * count).to(device)
        keys = image_keys([str(i) for i in range(count)])
        augmenter = Augmenter(parse(options.augment), keys, 0, size, device)
        form = input_form(name, "native")
        source = ImageSource(store, augmenter, Normalisation(form["mean"], form["std"], device), device)
        everything, nothing = np.arange(count), np.arange(0)
        job = Fit(
            network, source, labels, everything, nothing, 3, recipe, device, precision, 0, False, tmp_path, 1e9
        )  # fmt: skip
        loop = Loop(job, lambda text: None)
        inputs = source.batch(np.arange(batch), None)
        target = torch.from_numpy(labels[:batch]).to(device)

        def fixed():
            for _ in range(batches):
                with autocast(device, precision):
                    logits = network(inputs)
                loss = cross_entropy(logits, target, None)
                loop.optimizer.zero_grad(set_to_none=True)
                loss.backward()
                loop.optimizer.step()

        def epoch():
            loop.epoch, loop.step, loop.losses, loop.hits = loop.epoch + 1, 0, [], []
            loop.train_epoch(lambda: None)

        def seconds(work):
            start = time.perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize()
            return time.perf_counter() - start

        seconds(fixed), seconds(epoch)
        ratios, speeds = [], []
        for turn in range(ROUNDS):
            # The order alternates, so that a machine that slows down favours neither.
            pair = {work: seconds(work) for work in ((fixed, epoch) if turn % 2 else (epoch, fixed))}
            ratios.append(pair[fixed] / pair[epoch])
            speeds.append(count / pair[epoch])
    speed = statistics.median(speeds)
    print(
        f"\ntraining {name} {size}px batch {batch} on {device} in {precision}: {speed:.0f} images/s, "
        f"ratio to one fixed batch {statistics.median(ratios):.3f} (of {ROUNDS} rounds: {min(ratios):.3f} to "
        f"{max(ratios):.3f}; wanted at least 0.95)"
    )
