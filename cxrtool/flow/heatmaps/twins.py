"""A model of twins that explains itself: why it calls an image what it calls it, and why it might call it the opposite.

Each target is a label. Its score is the highest probability that any twin of the image gives to any of the label's
classes, and its map is that of the twin and of the class that hold it (Tabik et al. 2020, COVID-SDNet, show both maps;
which twin's map is shown they do not say).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrtool.data.tables.twins import labels_of, split_class
from cxrtool.flow.heatmaps.drawing import OPPOSITE, View
from cxrtool.flow.heatmaps.subject import PREDICTED, Explained, Reason, Subject, class_index
from cxrtool.flow.predicting import TwinInput
from cxrtool.models.description import Input

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    import torch

    from cxrtool.explaining.randomised import Likeness


def load_subject(
    folder: Path, paths: Iterable[Path], source: str, method: str, layer: str | None, device: torch.device
) -> Subject:
    """Load a model as `Subject.load` does; one whose images have yet to be transformed explains their twins."""
    subject = Subject.load(folder, paths, source, method, layer, device)
    if subject.generators is None:
        return subject
    return TwinSubject(**{entry.name: getattr(subject, entry.name) for entry in fields(Subject)})


@dataclass(frozen=True)
class _Held:
    """What is to be explained: its name, and the twin and the class, by their places, that hold its probability."""

    name: str
    twin: int
    output: int
    probability: float


@dataclass
class TwinSubject(Subject):
    """A loaded model of twins, asked about radiographs.

    Attributes:
        twins: Makes the twins of a radiograph.
    """

    twins: TwinInput = field(init=False)

    def __post_init__(self) -> None:
        self.twins = TwinInput(self.generators or {}, self.description.input, self.device)

    @property
    def names(self) -> list[str]:
        """The labels."""
        return labels_of(self.classes)

    @property
    def form(self) -> Input:
        """What a radiograph is brought to before its twins are made."""
        return self.twins.form

    @property
    def shown(self) -> int:
        """Pictures that the network is shown of one image."""
        return len(self.twins.names)

    def check_target(self, target: str) -> None:
        """Check that `--target` names a label, a class of twins, or what depends on the answer.

        Raises:
            UsageError: It does not; the message names the nearest.
        """
        if target not in (PREDICTED, OPPOSITE):
            class_index("--target", target, [*self.names, *self.classes], (PREDICTED, OPPOSITE))

    def why(self, pictures: Sequence[np.ndarray], target: str) -> list[Explained]:
        """What the twins together say of radiographs (S, S) at `form`, and why.

        By default for the label decided for and for the next best; `opposite` explains the next best alone, and a name
        what it names.
        """
        from cxrtool.evaluation.fusion import twins as fuse

        made = self.twins.make(pictures)
        flat = [twin for twins in made for twin in twins]
        probabilities = self.ask(flat).reshape(len(pictures), self.shown, len(self.classes))
        names = self.names
        label = [names.index(split_class(name)[0]) for name in self.classes]
        shares, decided = fuse(probabilities, label, len(names), 0)
        found = []
        wanted: list[tuple[Explained, _Held, np.ndarray]] = []
        for i, (own, share) in enumerate(zip(probabilities, shares, strict=True)):
            first = int(decided[i])
            found.append(Explained(names[first], float(share[first]), []))
            second = max((k for k in range(len(names)) if k != first), key=lambda k: share[k])
            for name in {PREDICTED: [names[first], names[second]], OPPOSITE: [names[second]]}.get(target, [target]):
                held = self._hold(name, own)
                wanted.append((found[i], held, made[i][held.twin]))
        for start in range(0, len(wanted), len(flat)):
            part = wanted[start : start + len(flat)]
            answer = self.explain([picture for _, _, picture in part], _fixed([held.output for _, held, _ in part]))
            for values, (explained, held, picture) in zip(answer.maps, part, strict=True):
                twin, output = self.twins.names[held.twin], self.classes[held.output]
                explained.reasons.append(
                    Reason(held.name, held.probability, self._at_form(values), picture, twin, output)
                )
        return found

    def _hold(self, name: str, probabilities: np.ndarray) -> _Held:
        """Which twin holds the highest probability (K, C) of a label's classes, or of a class of twins, and which."""
        import numpy as np

        outputs = [k for k, own in enumerate(self.classes) if name in (own, split_class(own)[0])]
        place = int(probabilities[:, outputs].argmax())
        twin, column = np.unravel_index(place, (len(probabilities), len(outputs)))
        output = outputs[int(column)]
        return _Held(name, int(twin), output, float(probabilities[twin, output]))

    def _at_form(self, values: np.ndarray) -> np.ndarray:
        """A map at the size of the network's input as one at the size of the twins."""
        from cxrtool.imaging.fits import fit_geometry
        from cxrtool.imaging.placing import Move, lay_back

        side = self.form.size
        move = Move.of(fit_geometry(side, side, self.twins.size, self.twins.fit))
        return lay_back(values, [move], (side, side), (side, side))

    def compare_randomised(self, views: Sequence[View], target: str, seed: int) -> list[tuple[int, str, int, Likeness]]:
        """As `randomise`, with the twins and the classes that the first map of each radiograph is about."""
        found = self.why([view.pixels for view in views], target)
        columns = [self.classes.index(explained.reasons[0].output) for explained in found]
        return self.randomise_pictures([one.reasons[0].pixels for one in found], _fixed(columns), seed)


def _fixed(columns: Sequence[int]) -> Any:
    """A choice that does not depend on the answers."""
    import torch

    return lambda logits: torch.tensor(columns, device=logits.device)
