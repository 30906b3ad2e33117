"""Fit the linear map of an opacity network to what raters said of the extent of disease.

The features stay as they are, and there are few rated images, so ridge regression (Hoerl & Kennard 1970) has the one
best answer: of the means of the features over the lungs (the mean of both lungs, as the extent is their sum) to the
opaque share. Images without opacities take part with a small weight: they usually come from other hospitals than the
rated ones, and with their full weight the map would learn to tell the hospitals apart.
"""

from __future__ import annotations

import numpy as np
import torch

from cxrtool.imaging.masks import Mask
from cxrtool.imaging.zones import lungs_of
from cxrtool.models.opacity_unet import OpacityUNet, means_of
from cxrtool.training.engine import Stop, raise_if_stopped
from cxrtool.training.store import Store

RIDGE = 3.0
"""Penalty on the squared weights of standardised features, for each rated image."""

CLEAR = 0.1
"""Weight of an image without opacities; that of a rated one is 1."""

TRUST = 0.5
"""Weight of this estimate; the rest is that of the mask's probability. In cross-validation their mean was better than
either alone."""

HEALTHY, GAIN = 0.05, 1.3
"""What the mean of both finds in healthy lungs, and the factor for what is above it: both estimates are drawn to the
middle. In cross-validation on outlined radiographs with these the masks fitted best, and the shares nearly so."""

LEAST = 20
"""Rated images below which nothing is fitted."""

BATCH = 16


def fit_shares(
    module: OpacityUNet,
    images: Store,
    lungs: Store,
    indices: np.ndarray,
    shares: np.ndarray,
    rated: np.ndarray,
    *,
    stop: Stop = lambda: None,
) -> bool:
    """Fit the map of a network, on the CPU.

    Args:
        module: The network; its map is changed in place.
        images: Decoded images.
        lungs: Their lung masks in the same form.
        indices: Of the images to fit on, in the stores (n,).
        shares: The opaque share of their lungs (n,), in [0, 1].
        rated: Whether a rater saw opacities in them (n,); the others are without.
        stop: Called between batches; an error that it returns is raised.

    Returns:
        Whether there were enough rated images.

    Raises:
        CxrtoolError: What `stop` returned.
    """
    from sklearn.linear_model import Ridge

    if np.count_nonzero(rated) < LEAST:
        return False
    found = []
    for start in range(0, len(indices), BATCH):
        chosen = indices[start : start + BATCH]
        regions = torch.from_numpy(np.stack([_sides(mask.numpy()) for mask in lungs[chosen][:, 0].cpu()]))
        found.append(_features(module, images[chosen].to("cpu", torch.float32).mul_(1.0 / images.scale), regions))
        raise_if_stopped(stop)
    # Each image and its mirror image.
    features = np.concatenate(found, 1).astype(np.float64)
    mean, spread = features[:, rated].mean((0, 1)), features[:, rated].std((0, 1)) + 1e-6
    model = Ridge(alpha=RIDGE * np.count_nonzero(rated))
    standardised = ((features - mean) / spread).reshape(-1, features.shape[-1])
    weights = np.tile(np.where(rated, 0.5, 0.5 * CLEAR), 2)
    model.fit(standardised, np.tile(shares, 2), sample_weight=weights)
    weight = GAIN * TRUST * model.coef_ / spread
    bias = GAIN * (TRUST * model.intercept_ - HEALTHY) - weight @ mean
    for name, value in (("weight", weight), ("bias", bias), ("own", GAIN * (1 - TRUST))):
        getattr(module.shares, name).copy_(torch.as_tensor(value))
    return True


def _sides(mask: Mask) -> np.ndarray:
    """The lungs that a mask has, as (2, S, S) float32 of 0 and 1; a single one twice."""
    sides = [side > 0 for side in lungs_of(np.ascontiguousarray(mask)) if side.any()] or [mask > 0]
    return np.stack([sides[0], sides[-1]]).astype(np.float32)


@torch.inference_mode()
def _features(module: OpacityUNet, images: torch.Tensor, regions: torch.Tensor) -> np.ndarray:
    """Mean features of both lungs of images and of their mirror images: (2, B, C)."""
    module.eval()
    both = ((images, regions), (images.flip(3), regions.flip(3)))
    return np.stack([means_of(module.things.encode(shown), where).mean(1).numpy() for shown, where in both])
