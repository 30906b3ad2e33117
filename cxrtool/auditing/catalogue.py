"""The probes for shortcuts: what each is shown and what is said of it, in one place.

A new probe is one entry of `PROBES`: options, checks, tables, pictures and sentences derive from it. Nothing here
imports numpy, so that a command line can name the probes at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cxrtool.auditing.part import ALARM, NOTE, WARNING

if TYPE_CHECKING:
    from cxrtool.auditing.inputs import Pictures
    from cxrtool.auditing.views import View

NO_LUNG, OUTLINE, LUNG = "no lung", "outline of the lungs", "lungs"
"""What a probe holds of the lungs."""


@dataclass(frozen=True)
class Probe:
    """One probe.

    Attributes:
        name: As `--probes` takes it, and its key in `audit.json`.
        title: What a table calls it.
        alone: What a sentence calls it, as its subject.
        view: Makes what it is shown.
        holds: `NO_LUNG`, `OUTLINE` or `LUNG`.
        level: What is raised where it reaches more than chance.
        figures: It is shown figures in place of a picture.
        needs_lungs: Its view needs to know where the lungs are.
        plural: `alone` is more than one thing.
        because: What it means that it tells the classes apart; empty where that is what its kind means: something lies
            outside the lungs, or may be the illness.
        elsewhere: Its place among the probes that are asked about images from elsewhere too; 0 where it is none.
        source: What it is called where it is asked from which source an image is; empty where it is not asked that.
    """

    name: str
    title: str
    alone: str
    view: Callable[[Pictures], View]
    holds: str
    level: str
    figures: bool = False
    needs_lungs: bool = False
    plural: bool = False
    because: str = ""
    elsewhere: int = 0
    source: str = ""

    @property
    def kernel(self) -> str:
        """The key of `classifier.KERNELS` for what it is shown."""
        return "radial" if self.figures else "linear"

    def see(self, pictures: Pictures) -> View:
        """What it is shown of these pictures, or why that cannot be made."""
        if not self.needs_lungs:
            return self.view(pictures)
        from cxrtool.auditing.views import View, about_lungs

        enough, reason = about_lungs(pictures)
        if not enough:
            return View(None, reason=reason)
        seen = self.view(pictures)
        return replace(seen, reason=seen.reason or reason)


def _view(name: str) -> Callable[[Pictures], View]:
    """A function of `views`, which is imported once it is called."""

    def see(pictures: Pictures) -> View:
        from cxrtool.auditing import views

        seen: View = getattr(views, name)(pictures)
        return seen

    return see


THUMBNAIL = "thumbnail"
"""The probe that sees the whole picture."""

PROBES: dict[str, Probe] = {
    probe.name: probe
    for probe in (
        Probe(
            "size-and-shape",
            "size and shape of files",
            "size and type of the files alone",
            _view("size_and_shape"),
            NO_LUNG,
            ALARM,
            figures=True,
            plural=True,
            because="the classes come in different files, which a model may see by proportions or compression",
        ),
        Probe("border", "border", "the border alone", _view("border"), NO_LUNG, ALARM, elsewhere=2),
        Probe(
            "centre-blacked",
            "centre blacked",
            "the picture with its centre blacked",
            _view("centre_blacked"),
            NO_LUNG,
            ALARM,
        ),
        Probe(
            "lungs-erased",
            "lungs erased",
            "the picture with both lungs erased",
            _view("lungs_erased"),
            NO_LUNG,
            ALARM,
            needs_lungs=True,
        ),
        Probe(
            "mask-shape",
            "outline of the lungs",
            "the outline of the lungs alone",
            _view("mask_shape"),
            OUTLINE,
            WARNING,
            figures=True,
            needs_lungs=True,
            because="the classes differ in the size or shape of the lungs, as children and adults do; but an illness "
            "can change the outline too",
        ),
        Probe(
            "metadata",
            "metadata",
            "the manifest's columns and the file names alone",
            _view("metadata"),
            NO_LUNG,
            WARNING,
            figures=True,
            plural=True,
            because="where an image is from, or of whom, tells its label, and a model may have learnt that instead",
        ),
        Probe(
            "lungs-only",
            "lungs only",
            "a thumbnail of the lungs alone",
            _view("lungs_only"),
            LUNG,
            NOTE,
            needs_lungs=True,
            elsewhere=3,
            source="lungs alone",
        ),
        Probe(
            THUMBNAIL,
            "thumbnail",
            "a thumbnail of the whole picture",
            _view("thumbnail"),
            LUNG,
            NOTE,
            elsewhere=1,
            source="whole picture",
        ),
    )
}
"""All probes by name, in the order of the tables: those first that can raise an alarm."""


def elsewhere() -> list[Probe]:
    """The probes that are asked about images from elsewhere, in that order."""
    return sorted((probe for probe in PROBES.values() if probe.elsewhere), key=lambda probe: probe.elsewhere)


def of_source() -> list[Probe]:
    """The probes that are asked from which source an image is: the whole picture first, then what it holds."""
    asked = (probe for probe in PROBES.values() if probe.source)
    return sorted(asked, key=lambda probe: (probe.name != THUMBNAIL, probe.elsewhere))
