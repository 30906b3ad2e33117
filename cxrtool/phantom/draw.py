"""Draw one radiograph with its ground truth: anatomy, attenuation along rays, exposure, marks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cxrtool.phantom.body import Pose, draw_body
from cxrtool.phantom.bones import draw_other_bones, draw_ribs
from cxrtool.phantom.devices import draw_devices
from cxrtool.phantom.exposure import BONE, LUNG, Exposure
from cxrtool.phantom.fields import Field, roughness, step
from cxrtool.phantom.lesions import draw_lesions, extent_of
from cxrtool.phantom.marks import put_marks
from cxrtool.phantom.sources import Source
from cxrtool.phantom.subject import Drawing, Subject
from cxrtool.phantom.thorax import draw_thorax
from cxrtool.phantom.vessels import draw_vessels


def draw(subject: Subject, source: Source, size: int, *, ribless: bool = True) -> Drawing:
    """Draw a radiograph of a subject in the style of a source.

    Args:
        subject: The patient and the extent of the disease.
        source: Appearance, size and marks.
        size: Side in pixels, 32 or more; the source's height and width are shares of it.
        ribless: Whether to draw the image without ribs; otherwise `Drawing.ribless` is the image itself.
    """
    shape = (round(size * source.height), round(size * source.width))
    body = draw_body(subject)
    pose = Pose(subject, shape, body)
    thorax = draw_thorax(subject, body, pose)
    # Vessels are inside the lung and end before the pleura; behind the dome there is lung too.
    aerated = np.minimum(thorax.air * (1 / 9.0), 1)
    vessels = draw_vessels(subject, body, pose, thorax.hila) * aerated * np.sqrt(step(0.93 - thorax.across, 0.14))
    patient = np.random.default_rng([*subject.body, 12])
    grain = 1 + 0.025 * roughness(patient, shape, max(shape) / (pose.scale * 0.9), 3, 1.0)
    lung = thorax.air * LUNG * np.maximum(grain, 0.3) + vessels * 1.7
    bones = draw_other_bones(subject, body, pose) * (thorax.tissue > 0.5)
    healthy = thorax.tissue + lung + bones * BONE
    ribs = draw_ribs(subject, body, pose, thorax.across) * (BONE * (thorax.tissue > 0.5))
    exposure = Exposure(subject, source, pose, healthy + ribs, thorax.lungs[0] + thorax.lungs[1] > 0.5)
    lesions = draw_lesions(subject, pose, thorax)
    ill = (
        healthy + np.minimum(lesions.density, 0.95) * thorax.air * (1 - LUNG) * 0.62 + lesions.soft * (thorax.air > 0.5)
    )
    devices = draw_devices(subject, pose)
    if devices is not None:
        ill = ill + devices * 9.0
    image = put_marks(exposure.take(ill + ribs), subject, source)
    without_ribs = put_marks(exposure.take(ill), subject, source) if ribless else image
    shares = lesions.shares
    return Drawing(
        image=image,
        ribless=without_ribs,
        right_lung=_mask(thorax.lungs[0]),
        left_lung=_mask(thorax.lungs[1]),
        heart=_mask(thorax.heart),
        lesions=lesions.kinds,
        shares=shares,
        extent=(extent_of(shares[0]), extent_of(shares[1])),
    )


def _mask(field: Field) -> NDArray[np.uint8]:
    return np.where(field > 0.5, 255, 0).astype(np.uint8)
