"""A model of twins that is explained: maps for the predicted label of an image, and for the opposite label.

The score of a label is the highest probability of any of its classes for any twin of the image, and its map is that of
this twin and class (Tabik et al. 2020, COVID-SDNet, show both maps, but do not describe which twin they are of).
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
    """Load a model as `Subject.load` does; a `TwinSubject` if its images still need to be transformed."""
    subject = Subject.load(folder, paths, source, method, layer, device)
    if subject.generators is None:
        return subject
    return TwinSubject(**{entry.name: getattr(subject, entry.name) for entry in fields(Subject)})


@dataclass(frozen=True)
class _Maximum:
    """The highest probability of a target, with the indices of its twin and output class."""

    name: str
    twin: int
    output: int
    probability: float


@dataclass
class TwinSubject(Subject):
    """A loaded model of twins, applied to radiographs; `twins` makes their twins."""

    twins: TwinInput = field(init=False)

    def __post_init__(self) -> None:
        self.twins = TwinInput(self.generators or {}, self.description.input, self.device)

    @property
    def names(self) -> list[str]:
        """The labels."""
        return labels_of(self.classes)

    @property
    def form(self) -> Input:
        """Size and fit of a radiograph before its twins are made."""
        return self.twins.form

    @property
    def shown(self) -> int:
        """Number of network inputs per image."""
        return len(self.twins.names)

    def check_target(self, target: str) -> None:
        """Raise a `UsageError`, with the nearest name, if `--target` is neither a label nor a class of twins."""
        if target not in (PREDICTED, OPPOSITE):
            class_index("--target", target, [*self.names, *self.classes], (PREDICTED, OPPOSITE))

    def why(self, pictures: Sequence[np.ndarray], target: str) -> list[Explained]:
        """The fused predictions for prepared radiographs (S, S), and the maps for `--target`.

        `predicted` explains the predicted and the second most probable label, `opposite` only the latter.
        """
        from cxrtool.evaluation.fusion import twins as fuse

        made = self.twins.make(pictures)
        flat = [twin for twins in made for twin in twins]
        probabilities = self.ask(flat).reshape(len(pictures), self.shown, len(self.classes))
        names = self.names
        label = [names.index(split_class(name)[0]) for name in self.classes]
        shares, decided = fuse(probabilities, label, len(names), 0)
        found = []
        wanted: list[tuple[Explained, _Maximum, np.ndarray]] = []
        for i, (of_twins, share) in enumerate(zip(probabilities, shares, strict=True)):
            first = int(decided[i])
            found.append(Explained(names[first], float(share[first]), []))
            second = max((k for k in range(len(names)) if k != first), key=lambda k: share[k])
            for name in {PREDICTED: [names[first], names[second]], OPPOSITE: [names[second]]}.get(target, [target]):
                maximum = self._maximum(name, of_twins)
                wanted.append((found[i], maximum, made[i][maximum.twin]))
        for start in range(0, len(wanted), len(flat)):
            part = wanted[start : start + len(flat)]
            choose = _fixed([maximum.output for _, maximum, _ in part])
            answer = self.explain([picture for _, _, picture in part], choose)
            for values, (explained, maximum, picture) in zip(answer.maps, part, strict=True):
                twin, output = self.twins.names[maximum.twin], self.classes[maximum.output]
                explained.reasons.append(
                    Reason(maximum.name, maximum.probability, self._at_form(values), picture, twin, output)
                )
        return found

    def _maximum(self, name: str, probabilities: np.ndarray) -> _Maximum:
        """The maximum over the twins (K, C), for the classes of a label or for one class of twins."""
        import numpy as np

        outputs = [k for k, output in enumerate(self.classes) if name in (output, split_class(output)[0])]
        index = int(probabilities[:, outputs].argmax())
        twin, column = np.unravel_index(index, (len(probabilities), len(outputs)))
        output = outputs[int(column)]
        return _Maximum(name, int(twin), output, float(probabilities[twin, output]))

    def _at_form(self, values: np.ndarray) -> np.ndarray:
        """Convert a map from the size of the network input to that of the radiograph."""
        from cxrtool.imaging.fits import fit_geometry
        from cxrtool.imaging.placing import Move, lay_back

        side = self.form.size
        move = Move.of(fit_geometry(side, side, self.twins.size, self.twins.fit))
        return lay_back(values, [move], (side, side), (side, side))

    def compare_randomised(self, views: Sequence[View], target: str, seed: int) -> list[tuple[int, str, int, Likeness]]:
        """As `randomise`, with the twin and the class of the first map of each radiograph."""
        found = self.why([view.pixels for view in views], target)
        columns = [self.classes.index(explained.reasons[0].output) for explained in found]
        return self.randomise_pictures([one.reasons[0].pixels for one in found], _fixed(columns), seed)


def _fixed(columns: Sequence[int]) -> Any:
    """A choice that does not depend on the logits."""
    import torch

    return lambda logits: torch.tensor(columns, device=logits.device)
