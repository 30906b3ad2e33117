"""Sources: simulated hospitals, each with its appearance, image size, markers, borders and file format."""

from __future__ import annotations

from dataclasses import dataclass

FILES = {"png": "png", "png16": "png", "jpeg": "jpg", "dicom": "dcm"}
"""File formats with their suffixes: 8-bit and 16-bit PNG, JPEG, and DICOM of 12 bits."""

MARKERS = ("L", "R", "L-circle", "text", "dot")
"""Styles of the lead letters beside the shoulder."""

BORDERS = ("black", "white", "collimated", "frame", "none")
"""Styles of the edge of an image."""


@dataclass(frozen=True)
class Source:
    """The style of a simulated hospital.

    Attributes:
        name: Value of the column `source`.
        file: A key of `FILES`.
        height: Height of its images relative to `--size`.
        width: Width of its images relative to `--size`.
        marker: One of `MARKERS`; empty for none.
        border: One of `BORDERS`; empty for none.
        gamma: Exponent of the curve from film to grey; below 1 is brighter.
        contrast: Strength of the S shape of that curve; 0 for none.
        detail: Enhancement of fine structure, as in digital systems.
        scatter: Scattered relative to direct light; a grid reduces it.
        noise: Quantum noise behind a lung, relative to its light.
        blur: Unsharpness in millimetres at an adult's size.
        lung: Lowest and highest grey value of the clear lung.
    """

    name: str
    file: str
    height: float
    width: float
    marker: str = ""
    border: str = ""
    gamma: float = 1.0
    contrast: float = 0.0
    detail: float = 0.0
    scatter: float = 0.2
    noise: float = 0.02
    blur: float = 0.5
    lung: tuple[float, float] = (0.06, 0.3)


SOURCES = {
    source.name: source
    for source in (
        Source(
            "university",
            "png",
            1.0,
            1.0,
            marker="L",
            gamma=0.8,
            contrast=0.25,
            detail=0.5,
            scatter=0.22,
            noise=0.018,
            blur=0.2,
            lung=(0.14, 0.38),
        ),
        Source(
            "county",
            "jpeg",
            0.86,
            1.0,
            marker="R",
            border="collimated",
            gamma=0.75,
            detail=0.45,
            scatter=0.35,
            noise=0.024,
            blur=0.35,
            lung=(0.18, 0.45),
        ),
        Source(
            "lakeside",
            "jpeg",
            0.8,
            1.0,
            marker="R",
            gamma=0.85,
            contrast=0.2,
            detail=0.55,
            scatter=0.3,
            noise=0.02,
            blur=0.3,
            lung=(0.16, 0.44),
        ),
        Source(
            "harbour",
            "dicom",
            0.86,
            1.0,
            marker="text",
            border="black",
            gamma=0.8,
            detail=0.45,
            scatter=0.5,
            noise=0.034,
            blur=0.35,
            lung=(0.18, 0.5),
        ),
        Source(
            "archive",
            "png16",
            1.0,
            0.84,
            marker="L-circle",
            border="frame",
            gamma=0.95,
            contrast=0.5,
            detail=0.35,
            scatter=0.4,
            noise=0.032,
            blur=0.35,
            lung=(0.12, 0.38),
        ),
    )
}
"""The sources that are drawn by default, by name."""
