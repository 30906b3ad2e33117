"""The parameter randomisation test of saliency maps: does a heatmap depend on what the network has learned?

Adebayo et al. 2018 ("Sanity checks for saliency maps", NeurIPS, section 3.1): the maps of a trained network are
compared with those of the same network with random parameters, from the output downwards. If the maps do not change,
they show edges or the centre of the image, not what was learned. The cascade of the paper is done in two stages here,
the head and then all parameters; the measures are Spearman's rank correlation and structural similarity.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from skimage.metrics import structural_similarity
from torch import nn

from cxrtool.models.network import Network

HEAD, ALL = "head", "all"
STAGES = (HEAD, ALL)
DRAWS = 3
"""Random draws per stage: a single random head may have maps like the trained one by chance."""

ALIKE = 0.5
"""Mean rank correlation, with all parameters random, from which the maps count as unchanged."""


@dataclass(frozen=True)
class Likeness:
    """The similarity of two maps: Spearman's, -1 to 1, and that of their structure; None where a map is constant."""

    rank_correlation: float | None
    ssim: float | None


def redraw(network: Network, create: Callable[[], Network], stage: str) -> None:
    """Replace the parameters of a network, of its `head` or `all`, by random ones, in place.

    `create` builds the same network untrained, from the generator of torch; its parameters and running statistics are
    copied. Where these are constant, such as 0 in some output layers, the values are drawn from a normal distribution
    with the standard deviation of the trained ones.
    """
    trained, fresh = (
        nn.ModuleList(whole.head_modules() if stage == HEAD else [whole]) for whole in (network, create())
    )
    with torch.no_grad():
        for parameter, new in zip(trained.parameters(), fresh.parameters(), strict=True):
            constant = parameter.ndim > 1 and bool((new == new.flatten()[0]).all())
            drawn = torch.randn(new.shape) * float(parameter.std(correction=0)) if constant else new
            parameter.copy_(drawn.to(parameter))
        for buffer, start in zip(trained.buffers(), fresh.buffers(), strict=True):
            buffer.copy_(start.to(buffer))


def compare(one: NDArray[np.floating], other: NDArray[np.floating]) -> Likeness:
    """The similarity of two maps (S, S)."""
    if not (np.isfinite(one).all() and np.isfinite(other).all() and np.ptp(one) > 0 and np.ptp(other) > 0):
        return Likeness(None, None)
    rank = float(stats.spearmanr(one.ravel(), other.ravel()).statistic)
    scaled = [(values - values.min()) / np.ptp(values) for values in (one, other)]
    window = min(7, *one.shape)
    odd = window - (window + 1) % 2
    similarity = float(structural_similarity(*scaled, data_range=1.0, win_size=odd))  # type: ignore[no-untyped-call]
    return Likeness(rank, similarity)


def verdict(likenesses: Sequence[tuple[str, Likeness]]) -> list[str]:
    """The result in words, a line for each stage and one with the conclusion, from the stage of each comparison."""
    lines, means = [], {}
    for stage in STAGES:
        found = [likeness for name, likeness in likenesses if name == stage]
        ranks = [likeness.rank_correlation for likeness in found if likeness.rank_correlation is not None]
        similar = [likeness.ssim for likeness in found if likeness.ssim is not None]
        what = "the head" if stage == HEAD else "all parameters"
        if not ranks:
            lines.append(f"with {what} randomised no map can be compared: all of them are empty or flat")
            continue
        means[stage] = float(np.mean(ranks))
        text = f"with {what} randomised: rank correlation {means[stage]:.2f}, SSIM {np.mean(similar):.2f}"
        lost = len(found) - len(ranks)
        lines.append(text + (f" ({lost} of {len(found)} maps are empty)" if lost else ""))
    if ALL in means:
        alike = means[ALL] >= ALIKE
        lines.append(
            "the maps stay similar: the heatmap does NOT depend on what the network learned, and explains nothing"
            if alike
            else "the maps change: the heatmap depends on what the network learned"
        )
    return lines
