"""Does a heatmap depend on what the network has learnt? The parameter randomisation test of saliency maps.

Adebayo et al. 2018 ("Sanity checks for saliency maps", NeurIPS, section 3.1): the maps of a trained network are
compared with those of the same network whose parameters were drawn anew, from the output downwards. A method whose maps
stay the same shows edges, or the middle of the picture, and not what was learnt. Their cascade is taken here in two
stages, the head alone and then everything; their measures are Spearman's rank correlation and structural similarity.
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
"""How often each stage is drawn: one head may, by chance, look where the trained one does."""

ALIKE = 0.5
"""Mean rank correlation, with everything drawn anew, from which on the maps are called alike."""


@dataclass(frozen=True)
class Likeness:
    """How alike two maps are.

    Attributes:
        rank_correlation: Spearman's, -1 to 1; None where a map is the same everywhere.
        ssim: Structural similarity of both, each scaled to [0, 1]; None likewise.
    """

    rank_correlation: float | None
    ssim: float | None


def redraw(network: Network, create: Callable[[], Network], stage: str) -> None:
    """Draw parameters of a network anew, in place.

    Args:
        network: It changes.
        create: Builds the same network untrained, from torch's generator; its parameters and running statistics are
            what is taken over. Where it starts from a constant, as some output layers do from 0, the values are drawn
            from a normal distribution of the trained ones' spread.
        stage: `head` or `all`.
    """
    fresh = create()
    modules = network.head_modules() if stage == HEAD else [network]
    others = fresh.head_modules() if stage == HEAD else [fresh]
    with torch.no_grad():
        for module, other in zip(modules, others, strict=True):
            _take_over(module, other)


def _take_over(module: nn.Module, other: nn.Module) -> None:
    for parameter, new in zip(module.parameters(), other.parameters(), strict=True):
        constant = parameter.ndim > 1 and bool((new == new.flatten()[0]).all())
        drawn = torch.randn(new.shape) * float(parameter.std(correction=0)) if constant else new
        parameter.copy_(drawn.to(parameter))
    for buffer, start in zip(module.buffers(), other.buffers(), strict=True):
        buffer.copy_(start.to(buffer))


def compare(one: NDArray[np.floating], other: NDArray[np.floating]) -> Likeness:
    """How alike two maps (S, S) are."""
    if not (np.isfinite(one).all() and np.isfinite(other).all() and np.ptp(one) > 0 and np.ptp(other) > 0):
        return Likeness(None, None)
    rank = float(stats.spearmanr(one.ravel(), other.ravel()).statistic)
    scaled = [(values - values.min()) / np.ptp(values) for values in (one, other)]
    window = min(7, *one.shape)
    odd = window - (window + 1) % 2
    similarity = float(structural_similarity(*scaled, data_range=1.0, win_size=odd))  # type: ignore[no-untyped-call]
    return Likeness(rank, similarity)


def verdict(likenesses: Sequence[tuple[str, Likeness]]) -> list[str]:
    """The result in words, a line a stage and one that says what it means.

    Args:
        likenesses: The stage of each comparison, and what came of it.
    """
    lines, means = [], {}
    for stage in STAGES:
        found = [likeness for name, likeness in likenesses if name == stage]
        ranks = [likeness.rank_correlation for likeness in found if likeness.rank_correlation is not None]
        similar = [likeness.ssim for likeness in found if likeness.ssim is not None]
        what = "the head" if stage == HEAD else "all parameters"
        if not ranks:
            lines.append(f"with {what} drawn anew no map can be compared: all of them are empty or flat")
            continue
        means[stage] = float(np.mean(ranks))
        text = f"with {what} drawn anew: rank correlation {means[stage]:.2f}, SSIM {np.mean(similar):.2f}"
        lost = len(found) - len(ranks)
        lines.append(text + (f" ({lost} of {len(found)} maps are empty)" if lost else ""))
    if ALL in means:
        alike = means[ALL] >= ALIKE
        lines.append(
            "the maps stay alike: the heatmap does NOT depend on what was learnt, and explains nothing"
            if alike
            else "the maps change: the heatmap depends on what was learnt"
        )
    return lines
