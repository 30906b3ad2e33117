"""Class-inherent transformations on one processor: a joint step, and the making of twins.

A step is compared with the same step written one loss after the other, as the method reads and as its reference does:
each generator's loss has its own pass through generator and classifier, and the classifier another. Both are given the
same pictures, in turns, because other programs slow both. Twins are compared with the bare pass of the generators on
one batch that lies in memory.
"""

import numpy as np
import pytest
import torch
from torch.nn import functional

from cxrtool.models.architecture import Architecture
from cxrtool.models.class_inherent import NETWORKS, Generators, standardise
from cxrtool.models.parts import save_part
from cxrtool.models.registry import build
from cxrtool.training.class_inherent import (
    VARIATION,
    GeneratorFit,
    GeneratorTraining,
    class_cross_entropy,
    total_variation,
)
from cxrtool.training.device import choose_device, choose_precision
from cxrtool.training.options import FittingOptions
from cxrtool.training.twin_maker import TwinMaker

SIDE, BATCH, CLASSES = 64, 8, ["covid", "normal"]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Pictures:
    """Grey pictures in memory."""

    def __init__(self) -> None:
        self.images = torch.rand(BATCH, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))

    def batch(self, indices: np.ndarray, epoch: int | None) -> torch.Tensor:
        return self.images


def make_job(tmp_path) -> GeneratorFit:
    torch.manual_seed(0)
    classifier, _ = build(Architecture("resnet18", len(CLASSES), size=SIDE))
    recipe = FittingOptions(
        epochs=1, batch_size=BATCH, opt="adam", lr=1e-4, momentum=0.9, weight_decay=1e-4, opt_eps=None, opt_rho=0.95,
        sched="step", decay_epochs=5, decay_rate=0.1, warmup_epochs=0, min_lr=0.0, patience=0, checkpoint="last",
        class_weights="none",
    )  # fmt: skip
    device = choose_device("cpu")
    contest = GeneratorTraining(Generators(CLASSES), classifier).to(memory_format=torch.channels_last)
    return GeneratorFit(
        module=contest.train(), training=np.arange(BATCH), validation=np.arange(0), recipe=recipe, device=device,
        precision=choose_precision("auto", device), seed=0, state=tmp_path, perceptual=None, source=Pictures(),
        labels=np.arange(BATCH) % len(CLASSES), class_loss="own", class_loss_weight=0.05, classifier_lr=1e-3,
    )  # fmt: skip


def one_after_the_other(job: GeneratorFit) -> None:
    """The gradients of a step, each loss with passes of its own."""
    inputs, target = job.batch(np.arange(BATCH), 0)
    contest = job.module
    for index in range(len(CLASSES)):
        with torch.autocast("cpu", torch.bfloat16, enabled=job.precision == "bf16"):
            made, logits = contest(inputs)
        version = made[index].float()
        loss = functional.mse_loss(version, inputs) + VARIATION * total_variation(version)
        loss = loss + job.class_loss_weight * class_cross_entropy(logits, target, index)
        torch.autograd.grad(loss, list(contest.generators.members[index].parameters()))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=job.precision == "bf16"):
        made = torch.cat([member(inputs) for member in contest.generators.members])
    with torch.autocast("cpu", torch.bfloat16, enabled=job.precision == "bf16"):
        logits = contest.classifier(made).float().view(len(CLASSES), BATCH, -1)
    torch.autograd.grad(job.loss(logits, target), list(contest.classifier.parameters()))


@pytest.mark.bench
def test_a_joint_step(tmp_path, in_turns):
    job = make_job(tmp_path)
    optimizer = job.optimizer()

    def ours() -> None:
        optimizer.zero_grad(set_to_none=True)
        job.learn(np.arange(BATCH), 0)

    mine, theirs = in_turns(ours, lambda: one_after_the_other(job))
    each, other = (1000 * seconds / BATCH for seconds in (mine, theirs))
    print(
        f"\njoint step, {SIDE} pixels, {job.precision}: {each:.0f} ms a picture; one loss after the other {other:.0f}"
    )
    print(f"{other / each:.2f} times")


@pytest.mark.bench
def test_twins(tmp_path, in_turns):
    known = NETWORKS["fucitnet"]
    generators = Generators(CLASSES).eval()
    save_part(tmp_path / "p", "generators", "fucitnet", generators, known.form, {}, built_with={"classes": CLASSES})
    maker = TwinMaker(tmp_path / "p", choose_device("cpu"))
    pictures = list(np.random.default_rng(0).integers(0, 256, (BATCH, SIDE, SIDE), np.uint8))
    inputs = standardise(torch.from_numpy(np.stack(pictures))[:, None].float() / 255)
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    members = maker.network.members

    @torch.inference_mode()
    def bare() -> None:
        for member in members:
            member(inputs)

    mine, theirs = in_turns(lambda: maker.make(pictures), bare)
    print(f"\ntwins of {SIDE} pixels: {BATCH / mine:.1f} pictures/s, {theirs / mine:.3f} of the bare forward pass")
