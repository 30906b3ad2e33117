"""A loaded model that is explained: the preprocessing of its images, the target class, the maps.

A model of twins has maps for the predicted label of an image, and for the opposite label. The score of a label is the
highest probability of any of its classes for any twin of the image, and its map is that of this twin and class (Tabik
et al. 2020, COVID-SDNet, show both maps, but do not describe which twin they are of).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrtool.data.tables.twins import labels_of, split_class
from cxrtool.errors import InputError
from cxrtool.flow.chain import Chain, before_twins, chain_of, ends_with_twins, locate, missing_steps
from cxrtool.flow.heatmaps.drawing import INPUT, OPPOSITE, Task, View, view_one
from cxrtool.flow.heatmaps.options import METHODS
from cxrtool.flow.predicting import TwinInput
from cxrtool.flow.replaying import modules_of
from cxrtool.models.description import Input, ModelDescription
from cxrtool.options import one_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    import torch
    from torch import Tensor

    from cxrtool.explaining.randomised import Likeness
    from cxrtool.flow.heatmaps.options import Explainer
    from cxrtool.models.network import Network
    from cxrtool.training.features import Normalisation


PREDICTED = "predicted"
PRELOAD = ("cxrtool.data.reading.images", "cxrtool.imaging.hashing", "cxrtool.imaging.resize")


@dataclass
class Answer:
    """The predictions of a model for a batch, with their maps.

    Attributes:
        maps: (B, S, S) float32, at least 0, at the size of the network input; not scaled.
        probabilities: (B, K) float64.
        targets: (B,) index of the class that each map explains.
    """

    maps: np.ndarray
    probabilities: np.ndarray
    targets: np.ndarray


@dataclass
class Reason:
    """The map that explains one target for an image.

    Attributes:
        values: (S, S) float32, the map at the size of `Subject.form`; not scaled.
        pixels: The input of the network, (S, S) or of a twin (S, S, 3), uint8 or uint16.
        twin: The class whose generator made that input; empty where it is the image itself.
        output: The output class of the network that the map explains.
    """

    target: str
    probability: float
    values: np.ndarray
    pixels: np.ndarray
    twin: str = ""
    output: str = ""


@dataclass
class Explained:
    """The predicted class of an image, its probability, and one or two reasons."""

    predicted: str
    probability: float
    reasons: list[Reason]


@dataclass
class Subject:
    """A loaded model.

    Attributes:
        done: The preprocessing steps that its images have been through.
        chain: Those that they still need, without the generators.
        explainers: By the name of the method; the first is the one that is meant where none is named.
        normalise: From grey values in [0, 1] to the network input.
        generators: The entry of the generators that its images still need, with located paths; or None.
        of_twins: Its images are twins themselves, of three channels.
    """

    folder: Path
    description: ModelDescription
    network: Network
    done: Chain
    chain: Chain
    explainers: Mapping[str, Explainer]
    normalise: Normalisation
    device: torch.device
    generators: Mapping[str, Any] | None = None
    of_twins: bool = False

    @classmethod
    def load(
        cls,
        folder: Path,
        paths: Iterable[Path],
        source: str,
        methods: Sequence[str],
        layer: str | None,
        device: torch.device,
    ) -> Subject:
        """Load a model and find the layers for its maps; `source` is the name of the images at `paths` in messages.

        Of several methods `layer` is for those that take one.

        It is a `TwinSubject` if the images still need to be transformed.

        Raises:
            InputError: The images have another preprocessing, or the network has no map.
            UsageError: There is no such layer.
        """
        import torch

        from cxrtool.training.checkpoint import load_model
        from cxrtool.training.features import Normalisation

        network, description = load_model(folder)
        done = chain_of(paths)
        missing = missing_steps(locate(description.chain, folder), done, str(folder), source)
        chain, generators = before_twins(missing)
        network = network.to(device)
        form, size = description.normalization, description.input.size
        # Noise, so that the layer and the checks do not depend on the first image.
        example = torch.randn((2, len(form.mean), size, size), generator=torch.Generator().manual_seed(0))
        explainers = {}
        for name in methods:
            chosen = layer if METHODS[name].layered or len(methods) == 1 else None
            explainers[name] = METHODS[name].make(network, example.to(device), chosen)
        normalise = Normalisation(form.mean, form.std, device)
        kind = cls if generators is None else TwinSubject
        of_twins = ends_with_twins(done)
        return kind(folder, description, network, done, chain, explainers, normalise, device, generators, of_twins)

    @property
    def explainer(self) -> Explainer:
        """The first method."""
        return next(iter(self.explainers.values()))

    @property
    def classes(self) -> list[str]:
        """The names of the classes, in the order of the outputs."""
        return list(self.description.classes)

    @property
    def names(self) -> list[str]:
        """The possible predictions."""
        return self.classes

    @property
    def form(self) -> Input:
        """Size and fit of the prepared image."""
        return self.description.input

    @property
    def shown(self) -> int:
        """Number of network inputs per image."""
        return 1

    def check_target(self, target: str) -> None:
        """Raise a `UsageError`, with the nearest name, if `--target` is not a class."""
        chooser(target, self.classes)

    def views(
        self, tasks: Sequence[Task], batch_size: int, workers: int, max_pixels: int | None, over: str = INPUT
    ) -> Iterator[list[tuple[int, View | InputError]]]:
        """The images in batches, each with its index in `tasks`, read by worker processes."""
        from cxrtool.flow.parallel import map_items

        form = self.form
        work = partial(
            view_one,
            chain=self.chain,
            size=form.size,
            fit=form.fit,
            max_pixels=max_pixels,
            over=over,
            colour=self.of_twins,
        )
        preload = (*PRELOAD, *modules_of(self.chain))
        results = map_items(work, tasks, workers=min(workers, len(tasks) or 1), preload=preload)
        numbered = ((index, result) for index, (_, result) in enumerate(results))
        while batch := list(islice(numbered, max(1, batch_size // self.shown))):
            yield batch

    def why(self, pictures: Sequence[np.ndarray], target: str, method: str | None = None) -> list[Explained]:
        """The predictions for prepared images (S, S), and the maps for `--target`, by the first or another method."""
        answer = self.explain(pictures, chooser(target, self.classes), self._by(method))
        found = []
        for k, (probabilities, index) in enumerate(zip(answer.probabilities, answer.targets, strict=True)):
            reason = Reason(self.classes[index], float(probabilities[index]), answer.maps[k], pictures[k])
            predicted = self.classes[int(probabilities.argmax())]
            found.append(Explained(predicted, float(probabilities.max()), [reason]))
        return found

    def explain(
        self,
        pictures: Sequence[np.ndarray],
        choose: Callable[[Tensor], Tensor],
        explainer: Explainer | None = None,
    ) -> Answer:
        """The maps of prepared images (S, S), uint8 or uint16, in fp32; a `CxrtoolError` if GPU memory is too small."""
        import torch

        from cxrtool.explaining.cam import upsample
        from cxrtool.training.device import AtOnce

        images = self._inputs(pictures)
        explain, count = explainer or self.explainer, len(images)
        # Not in portions: `choose` may be for these images.
        found = AtOnce()(lambda size: explain(images, choose), count, least=count)
        probabilities = torch.softmax(found.logits.double(), 1)
        maps = upsample(found.values.float(), images.shape[-1])
        return Answer(maps.cpu().numpy(), probabilities.cpu().numpy(), found.targets.cpu().numpy())

    def ask(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """Probabilities (B, K) of network inputs (S, S), without maps; a `CxrtoolError` if one is too large."""
        import torch

        from cxrtool.explaining.layers import at_rest
        from cxrtool.training.device import in_halves

        with at_rest(self.network), torch.inference_mode():
            logits = in_halves(self.network, self._inputs(pictures))
        probabilities: np.ndarray = torch.softmax(logits.double(), 1).cpu().numpy()
        return probabilities

    def _by(self, method: str | None) -> Explainer:
        return self.explainers[method] if method else self.explainer

    def _inputs(self, pictures: Sequence[np.ndarray]) -> Tensor:
        from cxrtool.training.inference import as_batch

        return self.normalise(as_batch(pictures).to(self.device))

    def compare_randomised(self, views: Sequence[View], target: str, seed: int) -> list[tuple[int, str, int, Likeness]]:
        """As `randomise`, for `--target`."""
        return self.randomise([view.pixels for view in views], chooser(target, self.classes), seed)

    def randomise(
        self, pictures: Sequence[np.ndarray], choose: Callable[[Tensor], Tensor], seed: int
    ) -> list[tuple[int, str, int, Likeness]]:
        """Compare the maps of prepared images (S, S) with those of the same network with random parameters.

        The target class of a map stays that of the trained network.

        Returns:
            For each comparison the index of the image, the stage, the draw, and the similarity of the maps.
        """
        import torch

        from cxrtool.explaining import randomised
        from cxrtool.explaining.cam import GradCam
        from cxrtool.models.registry import build

        trained = self.explain(pictures, choose)
        architecture = self.description.architecture
        layer = self.explainer.layer.name if isinstance(self.explainer, GradCam) else None
        example = torch.randn((2, len(self.description.normalization.mean), *trained.maps.shape[1:]))
        targets = torch.from_numpy(trained.targets).to(self.device)
        found = []
        for stage in randomised.STAGES:
            for draw in range(randomised.DRAWS):
                torch.manual_seed(seed + draw)
                other = copy.deepcopy(self.network)
                randomised.redraw(other, lambda: build(architecture)[0], stage)
                explainer = METHODS[self.explainer.name].make(other, example.to(self.device), layer)
                answer = self.explain(pictures, lambda _: targets, explainer)
                for index, (one, drawn) in enumerate(zip(trained.maps, answer.maps, strict=True)):
                    found.append((index, stage, draw, randomised.compare(one, drawn)))
        return found


def chooser(target: str, classes: Sequence[str]) -> Callable[[Tensor], Tensor]:
    """From `--target` to a function from logits (B, K) to the classes (B,) to explain; a `UsageError` if unknown."""
    if target == PREDICTED:
        return lambda logits: logits.argmax(1)
    if target == OPPOSITE:
        return lambda logits: logits.topk(2, 1).indices[:, 1]
    index = class_index("--target", target, classes, (PREDICTED, OPPOSITE))
    return lambda logits: logits.argmax(1) * 0 + index


def class_index(option: str, name: str, classes: Sequence[str], others: Sequence[str] = ()) -> int:
    """The index of a class; a `UsageError` with the nearest name if there is no such class."""
    one_of(option, name, [*others, *classes])
    return list(classes).index(name)


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

    def why(self, pictures: Sequence[np.ndarray], target: str, method: str | None = None) -> list[Explained]:
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
            answer = self.explain([picture for _, _, picture in part], choose, self._by(method))
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
        return self.randomise([one.reasons[0].pixels for one in found], _fixed(columns), seed)


def _fixed(columns: Sequence[int]) -> Any:
    """A choice that does not depend on the logits."""
    import torch

    return lambda logits: torch.tensor(columns, device=logits.device)
