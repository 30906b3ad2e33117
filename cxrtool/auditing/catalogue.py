"""The probes for shortcuts: what each sees and how it is described, in one place.

A new probe is one entry of `PROBES`: options, checks, tables, figures and sentences derive from it. Nothing here
imports numpy, so that the command line can list the probes quickly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cxrtool.auditing.part import ALARM, NOTE, WARNING

if TYPE_CHECKING:
    from cxrtool.auditing.views import ImageSet, View

NO_LUNG, OUTLINE, LUNG = "no lung", "outline of the lungs", "lungs"
"""What a probe contains of the lungs."""


@dataclass(frozen=True)
class Probe:
    """One probe.

    Attributes:
        name: As `--probes` takes it, and its key in `audit.json`.
        title: Its name in tables.
        subject: Its name as the subject of a sentence; `plural` where it is one.
        view: Makes its input from images, numbers where `figures`.
        holds: `NO_LUNG`, `OUTLINE` or `LUNG`.
        level: The level of the finding where it reaches more than chance.
        needs_lungs: Its view needs the positions of the lungs.
        because: What it means that it separates the classes; empty where the finding for its kind explains it.
        external: Its position among the probes that are tested on external images; 0 where it is not.
        source: Its name where it predicts the source of an image; empty where it does not.
    """

    name: str
    title: str
    subject: str
    view: Callable[[ImageSet], View]
    holds: str
    level: str
    figures: bool = False
    needs_lungs: bool = False
    plural: bool = False
    because: str = ""
    external: int = 0
    source: str = ""

    @property
    def kernel(self) -> str:
        """The key of `classifier.KERNELS` for its input."""
        return "radial" if self.figures else "linear"

    def see(self, pictures: ImageSet) -> View:
        """Its input for these images, or the reason why it has none."""
        if not self.needs_lungs:
            return self.view(pictures)
        from cxrtool.auditing.views import View, about_lungs

        enough, reason = about_lungs(pictures)
        if not enough:
            return View(None, reason=reason)
        seen = self.view(pictures)
        return replace(seen, reason=seen.reason or reason)


def _probe(name: str, subject: str, holds: str, level: str, *, title: str = "", **others: Any) -> Probe:
    """A probe whose input the function of `views` with its name makes; that is imported only when it is called."""

    def see(pictures: ImageSet) -> View:
        from cxrtool.auditing import views

        seen: View = getattr(views, name.replace("-", "_"))(pictures)
        return seen

    return Probe(name, title or name.replace("-", " "), subject, see, holds, level, **others)


THUMBNAIL = "thumbnail"
"""The probe that sees the whole image."""

PROBES: dict[str, Probe] = {
    probe.name: probe
    for probe in (
        _probe(
            "size-and-shape",
            "size and type of the files alone",
            NO_LUNG,
            ALARM,
            title="size and shape of files",
            figures=True,
            plural=True,
            because="the classes differ in their files, which a model may recognise by proportions or compression",
        ),
        _probe("border", "the border alone", NO_LUNG, ALARM, external=2),
        _probe("centre-blacked", "the image with its centre blacked out", NO_LUNG, ALARM, title="centre blacked out"),
        _probe("lungs-erased", "the image with both lungs erased", NO_LUNG, ALARM, needs_lungs=True),
        _probe(
            "mask-shape",
            "the outline of the lungs alone",
            OUTLINE,
            WARNING,
            title="outline of the lungs",
            figures=True,
            needs_lungs=True,
            because="the classes differ in the size or shape of the lungs, as children and adults do; but the disease "
            "can change the outline too",
        ),
        _probe(
            "metadata",
            "the manifest's columns and the file names alone",
            NO_LUNG,
            WARNING,
            figures=True,
            plural=True,
            because="the source or patient of an image predicts its label, and a model may have learnt that instead",
        ),
        _probe(
            "lungs-only",
            "a thumbnail of the lungs alone",
            LUNG,
            NOTE,
            needs_lungs=True,
            external=3,
            source="lungs alone",
        ),
        _probe(THUMBNAIL, "a thumbnail of the whole image", LUNG, NOTE, external=1, source="whole image"),
    )
}
"""All probes by name, in the order of the tables: those that can raise an alarm come first."""


def for_external() -> list[Probe]:
    """The probes that are tested on external images, in order."""
    return sorted((probe for probe in PROBES.values() if probe.external), key=lambda probe: probe.external)


def for_source() -> list[Probe]:
    """The probes that predict the source of an image: the whole image first."""
    chosen = (probe for probe in PROBES.values() if probe.source)
    return sorted(chosen, key=lambda probe: (probe.name != THUMBNAIL, probe.external))
