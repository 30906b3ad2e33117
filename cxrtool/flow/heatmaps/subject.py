"""A loaded model that explains itself: the chain its images need, the class that is asked about, the maps."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrtool.errors import CxrtoolError, InputError, UsageError
from cxrtool.flow.chain import Chain, before_twins, chain_of, missing_steps, modules_of
from cxrtool.flow.heatmaps.drawing import INPUT, OPPOSITE, Task, View, view_one
from cxrtool.flow.heatmaps.options import METHODS
from cxrtool.flow.parts import locate
from cxrtool.models.description import Input, ModelDescription

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
    """What a model says of a batch, and why.

    Attributes:
        maps: (B, S, S) float32, at least 0, at the size of the network's input; not scaled.
        probabilities: (B, K) float64.
        targets: (B,) index of the class that each map explains.
    """

    maps: np.ndarray
    probabilities: np.ndarray
    targets: np.ndarray


@dataclass
class Reason:
    """Why an image might be called something.

    Attributes:
        target: The name that is explained.
        probability: What the model gives it.
        values: (S, S) float32, the map at the size to which `Subject.form` brings the image; not scaled.
        pixels: What the network was shown, uint8 or uint16.
        twin: Whose generator made that of the image; empty where it is the image itself.
        output: The network's class that the map is about.
    """

    target: str
    probability: float
    values: np.ndarray
    pixels: np.ndarray
    twin: str = ""
    output: str = ""


@dataclass
class Explained:
    """What a model calls an image, with which probability, and one or two reasons."""

    predicted: str
    probability: float
    reasons: list[Reason]


@dataclass
class Subject:
    """One model, loaded.

    Attributes:
        folder: Where it lies.
        description: Its `model.json`.
        network: In evaluation mode, on the device.
        chain: What its images have yet to go through, but for the generators.
        explainer: What makes its maps.
        normalise: From grey values in [0, 1] to the network's input.
        device: Where it computes.
        generators: The located entry of the generators that its images have yet to go through, or None.
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
        """Load a model and find the layer that its maps are made of.

        Args:
            folder: The model folder.
            paths: The images that it is to explain.
            source: What to call them in a message.
            method: A key of `METHODS`.
            layer: The module to look at, or None.
            device: Where to compute.

        Raises:
            InputError: The images have been through another preprocessing; or the network has no map.
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
        # Noise, so that neither the layer nor what is checked depends on the picture that happens to come first.
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
        """What an image may be called."""
        return self.classes

    @property
    def form(self) -> Input:
        """What an image is brought to: size and fit."""
        return self.description.input

    @property
    def shown(self) -> int:
        """Pictures that the network is shown of one image."""
        return 1

    def check_target(self, target: str) -> None:
        """Check `--target`.

        Raises:
            UsageError: It names no class; the message names the nearest.
        """
        chooser(target, self.classes)

    def views(
        self, tasks: Sequence[Task], batch_size: int, workers: int, max_pixels: int | None, over: str = INPUT
    ) -> Iterator[list[tuple[int, View | InputError]]]:
        """The images in batches, each with its place among the tasks, read by worker processes."""
        from cxrtool.flow.parallel import map_items

        form = self.form
        work = partial(view_one, chain=self.chain, size=form.size, fit=form.fit, max_pixels=max_pixels, over=over)
        preload = (*PRELOAD, *modules_of(self.chain))
        results = map_items(work, tasks, workers=min(workers, len(tasks) or 1), preload=preload)
        numbered = ((index, result) for index, (_, result) in enumerate(results))
        while batch := list(islice(numbered, max(1, batch_size // self.shown))):
            yield batch

    def why(self, pictures: Sequence[np.ndarray], target: str) -> list[Explained]:
        """What the model calls pictures (S, S) at `form`, and why it would call them what `--target` says."""
        answer = self.explain(pictures, chooser(target, self.classes))
        found = []
        for k, (own, place) in enumerate(zip(answer.probabilities, answer.targets, strict=True)):
            reason = Reason(self.classes[place], float(own[place]), answer.maps[k], pictures[k])
            found.append(Explained(self.classes[int(own.argmax())], float(own.max()), [reason]))
        return found

    def explain(self, pictures: Sequence[np.ndarray], choose: Callable[[Tensor], Tensor]) -> Answer:
        """The maps of pictures (S, S), uint8 or uint16, in fp32.

        Raises:
            CxrtoolError: The GPU's memory does not hold them.
        """
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
        """Probabilities (B, K) of pictures (S, S) at the network's input, without a map.

        Raises:
            CxrtoolError: The GPU's memory does not hold them.
        """
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
        """As `randomise`, for what `--target` says."""
        return self.randomise(views, chooser(target, self.classes), seed)

    def randomise(
        self, views: Sequence[View], choose: Callable[[Tensor], Tensor], seed: int
    ) -> list[tuple[int, str, int, Likeness]]:
        """As `randomise_pictures`, of views."""
        return self.randomise_pictures([view.pixels for view in views], choose, seed)

    def randomise_pictures(
        self, pictures: Sequence[np.ndarray], choose: Callable[[Tensor], Tensor], seed: int
    ) -> list[tuple[int, str, int, Likeness]]:
        """Compare the maps of pictures (S, S) with those of the same network after its parameters were drawn anew.

        The class that a map is about stays the one that the trained network was asked about.

        Returns:
            For each comparison the picture's index, the stage, the draw, and how alike the maps are.
        """
        import torch

        from cxrtool.explaining import randomised
        from cxrtool.explaining.cam import GradCam
        from cxrtool.models.registry import build

        own = self.explain(pictures, choose)
        architecture = self.description.architecture
        layer = self.explainer.layer.name if isinstance(self.explainer, GradCam) else None
        example = torch.randn((2, len(self.description.normalization.mean), *own.maps.shape[1:]))
        targets = torch.from_numpy(own.targets).to(self.device)
        found = []
        for stage in randomised.STAGES:
            for draw in range(randomised.DRAWS):
                torch.manual_seed(seed + draw)
                other = copy.deepcopy(self.network)
                randomised.redraw(other, lambda: build(architecture)[0], stage)
                explainer = METHODS[self.explainer.name].make(other, example.to(self.device), layer)
                answer = self._explain_with(explainer, pictures, lambda _: targets)
                for index, (one, drawn) in enumerate(zip(own.maps, answer.maps, strict=True)):
                    found.append((index, stage, draw, randomised.compare(one, drawn)))
        return found


def _too_large(count: int) -> CxrtoolError:
    return CxrtoolError(
        f"the GPU's memory does not hold {count} images", "take a smaller --batch-size, or --device cpu"
    )


def chooser(target: str, classes: Sequence[str]) -> Callable[[Tensor], Tensor]:
    """From logits (B, K) to the classes (B,) to explain.

    Args:
        target: `predicted`, `opposite`, or the name of a class.
        classes: The names.

    Raises:
        UsageError: No such class; the message names the nearest.
    """
    if target == PREDICTED:
        return lambda logits: logits.argmax(1)
    if target == OPPOSITE:
        return lambda logits: logits.topk(2, 1).indices[:, 1]
    index = class_index("--target", target, classes, (PREDICTED, OPPOSITE))
    return lambda logits: logits.argmax(1) * 0 + index


def class_index(option: str, name: str, classes: Sequence[str], others: Sequence[str] = ()) -> int:
    """The place of a class.

    Raises:
        UsageError: There is none of this name; the message names the nearest.
    """
    if name in classes:
        return list(classes).index(name)
    known = [*others, *classes]
    near = difflib.get_close_matches(name, known, 1, 0.5)
    meant = f"; did you mean '{near[0]}'?" if near else ""
    raise UsageError(f"{option}: expected one of {', '.join(known)}, found '{name}'{meant}")
