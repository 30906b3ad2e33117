"""A loaded model that is explained: the preprocessing of its images, the target class, the maps."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrtool.errors import CxrtoolError, InputError
from cxrtool.flow.chain import Chain, before_twins, chain_of, missing_steps, modules_of
from cxrtool.flow.heatmaps.drawing import INPUT, OPPOSITE, Task, View, view_one
from cxrtool.flow.heatmaps.options import METHODS
from cxrtool.flow.parts import locate
from cxrtool.models.description import Input, ModelDescription
from cxrtool.options import one_of

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor

    from cxrtool.explaining.cam import Cam, GradCam
    from cxrtool.explaining.randomised import Likeness
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
        target: The class or label that is explained.
        probability: Its predicted probability.
        values: (S, S) float32, the map at the size of `Subject.form`; not scaled.
        pixels: The input of the network, uint8 or uint16.
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
        folder: The model folder.
        description: Its `model.json`.
        network: In evaluation mode, on the device.
        chain: The preprocessing steps that its images still need, without the generators.
        normalise: From grey values in [0, 1] to the network input.
        generators: The entry of the generators that its images still need, with located paths; or None.
    """

    folder: Path
    description: ModelDescription
    network: Network
    chain: Chain
    explainer: GradCam | Cam
    normalise: Normalisation
    device: torch.device
    generators: Mapping[str, Any] | None = None

    @classmethod
    def load(
        cls, folder: Path, paths: Iterable[Path], source: str, method: str, layer: str | None, device: torch.device
    ) -> Subject:
        """Load a model and find the layer for its maps; `source` is the name of the images at `paths` in messages.

        Raises:
            InputError: The images have another preprocessing, or the network has no map.
            UsageError: There is no such layer.
        """
        import torch

        from cxrtool.training.checkpoint import load_model
        from cxrtool.training.features import Normalisation

        network, description = load_model(folder)
        missing = missing_steps(locate(description.chain, folder), chain_of(paths), str(folder), source)
        chain, generators = before_twins(missing)
        network = network.to(device)
        form, size = description.normalization, description.input.size
        # Noise, so that the layer and the checks do not depend on the first image.
        example = torch.randn((2, len(form.mean), size, size), generator=torch.Generator().manual_seed(0))
        explainer = METHODS[method].make(network, example.to(device), layer)
        normalise = Normalisation(form.mean, form.std, device)
        return cls(folder, description, network, chain, explainer, normalise, device, generators)

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
        work = partial(view_one, chain=self.chain, size=form.size, fit=form.fit, max_pixels=max_pixels, over=over)
        preload = (*PRELOAD, *modules_of(self.chain))
        results = map_items(work, tasks, workers=min(workers, len(tasks) or 1), preload=preload)
        numbered = ((index, result) for index, (_, result) in enumerate(results))
        while batch := list(islice(numbered, max(1, batch_size // self.shown))):
            yield batch

    def why(self, pictures: Sequence[np.ndarray], target: str) -> list[Explained]:
        """The predictions for prepared images (S, S), and the maps for `--target`."""
        answer = self.explain(pictures, chooser(target, self.classes))
        found = []
        for k, (probabilities, index) in enumerate(zip(answer.probabilities, answer.targets, strict=True)):
            reason = Reason(self.classes[index], float(probabilities[index]), answer.maps[k], pictures[k])
            predicted = self.classes[int(probabilities.argmax())]
            found.append(Explained(predicted, float(probabilities.max()), [reason]))
        return found

    def explain(self, pictures: Sequence[np.ndarray], choose: Callable[[Tensor], Tensor]) -> Answer:
        """The maps of prepared images (S, S), uint8 or uint16, in fp32; a `CxrtoolError` if GPU memory is too small."""
        return self._explain_with(self.explainer, pictures, choose)

    def _explain_with(
        self, explainer: GradCam | Cam, pictures: Sequence[np.ndarray], choose: Callable[[Tensor], Tensor]
    ) -> Answer:
        import torch

        from cxrtool.explaining.cam import upsample

        images = self._inputs(pictures)
        try:
            found = explainer(images, choose)
        except torch.OutOfMemoryError:
            raise _too_large(len(pictures)) from None
        probabilities = torch.softmax(found.logits.double(), 1)
        maps = upsample(found.values.float(), images.shape[-1])
        return Answer(maps.cpu().numpy(), probabilities.cpu().numpy(), found.targets.cpu().numpy())

    def ask(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """Probabilities (B, K) of network inputs (S, S), without maps; a `CxrtoolError` if GPU memory is too small."""
        import torch

        from cxrtool.explaining.layers import at_rest

        try:
            with at_rest(self.network), torch.inference_mode():
                logits = self.network(self._inputs(pictures))
        except torch.OutOfMemoryError:
            raise _too_large(len(pictures)) from None
        probabilities: np.ndarray = torch.softmax(logits.double(), 1).cpu().numpy()
        return probabilities

    def _inputs(self, pictures: Sequence[np.ndarray]) -> Tensor:
        import numpy as np
        import torch

        scaled = [picture.astype(np.float32) * np.float32(1.0 / np.iinfo(picture.dtype).max) for picture in pictures]
        return self.normalise(torch.from_numpy(np.stack(scaled)).unsqueeze(1).to(self.device))

    def compare_randomised(self, views: Sequence[View], target: str, seed: int) -> list[tuple[int, str, int, Likeness]]:
        """As `randomise`, for `--target`."""
        return self.randomise(views, chooser(target, self.classes), seed)

    def randomise(
        self, views: Sequence[View], choose: Callable[[Tensor], Tensor], seed: int
    ) -> list[tuple[int, str, int, Likeness]]:
        """As `randomise_pictures`, of views."""
        return self.randomise_pictures([view.pixels for view in views], choose, seed)

    def randomise_pictures(
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
                answer = self._explain_with(explainer, pictures, lambda _: targets)
                for index, (one, drawn) in enumerate(zip(trained.maps, answer.maps, strict=True)):
                    found.append((index, stage, draw, randomised.compare(one, drawn)))
        return found


def _too_large(count: int) -> CxrtoolError:
    return CxrtoolError(
        f"the memory of the GPU is too small for {count} images", "use a smaller --batch-size, or --device cpu"
    )


def chooser(target: str, classes: Sequence[str]) -> Callable[[Tensor], Tensor]:
    """The function from logits (B, K) to the classes (B,) to explain.

    Args:
        target: `predicted`, `opposite`, or the name of a class.
        classes: Names in the order of the outputs.

    Raises:
        UsageError: There is no such class; the message has the nearest name.
    """
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
