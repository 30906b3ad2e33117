"""Write a model as one file for other programs, such as ONNX.

The graph takes grey images of the model's size, normalises them, and returns the probability of each class. The file
also has the classes, the whole preprocessing and the digests of the training images, so that predict and evaluate take
it in the place of the model folder. It is compared with torch before it is written.

Example: cxrtool weights export run/r0f0 -o model.onnx
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cxrtool.data.file_names import MODEL_WEIGHTS
from cxrtool.data.files import atomic_path, saying_what_fails, sha256_file
from cxrtool.errors import InputError, UsageError
from cxrtool.flow.assignment import fitted_on
from cxrtool.flow.chain import Chain, copy_parts, ends_with_twins, locate, parts_of
from cxrtool.flow.replacing import check_file
from cxrtool.flow.run import model_folders
from cxrtool.flow.settings import Settings
from cxrtool.models.description import ModelDescription
from cxrtool.models.onnx_file import CALIBRATED, PROBABILITIES, SUFFIX, is_exported, read_metadata, to_metadata
from cxrtool.options import Options, argument, option

if TYPE_CHECKING:
    from cxrtool.models.network import Network


@dataclass(frozen=True)
class Wanted:
    """What is written.

    Attributes:
        channels: Of the input: 1, or 3 for a model of twins.
        temperature: Fitted on validation images; None if it was not fitted.
        metadata: Of the file.
    """

    description: ModelDescription
    channels: int
    temperature: float | None
    metadata: Mapping[str, str]


@dataclass(frozen=True)
class Format:
    """A format of files.

    Attributes:
        suffix: Of its files.
        metadata: Of a file that this command wrote; empty of any other.
        write: Writes a network to a file and returns what to report; an `InputError` if it differs from torch.
    """

    suffix: str
    metadata: Callable[[Path], Mapping[str, str]]
    write: Callable[[Path, Network, Wanted, Settings], list[str]]


def _onnx_metadata(path: Path) -> Mapping[str, str]:
    try:
        return read_metadata(path) if is_exported(path) else {}
    except InputError:
        return {}


def _write_onnx(path: Path, network: Network, wanted: Wanted, settings: Settings) -> list[str]:
    import torch

    from cxrtool.training.device import local_randomness
    from cxrtool.training.inference import TorchClassifier
    from cxrtool.training.onnx_classifier import OnnxClassifier
    from cxrtool.training.onnx_graph import TOLERANCE, export, samples

    description, cpu = wanted.description, torch.device("cpu")
    with local_randomness(settings.seed, settings.threads):
        content = export(network, description, wanted.channels, wanted.temperature, wanted.metadata)
        images = samples(description.input.size, wanted.channels)
        expected = TorchClassifier(network, description, cpu).probabilities(images)
        graph = OnnxClassifier(content, description, cpu)
        # One by one as `predict` does it, and as one batch.
        found = {PROBABILITIES: [graph.probabilities(images), graph.run(images)]}
        answers = {PROBABILITIES: expected}
        if wanted.temperature is not None:
            answers[CALIBRATED] = torch.softmax(expected.log() / wanted.temperature, 1)
            found[CALIBRATED] = [graph.run(images, CALIBRATED)]
    largest = max(float((one - answers[name]).abs().max()) for name, some in found.items() for one in some)
    if not largest <= TOLERANCE:
        raise InputError(
            f"{description.network.get('name')}: expected the probabilities of torch within {TOLERANCE:g}, found "
            f"a difference of {largest:.2g}; nothing was written",
            "use the model folder; another version of torch or onnxruntime may export it exactly",
        )
    path.write_bytes(content)
    return [
        f"{wanted.channels} x {images.shape[2]} x {images.shape[3]} grey values from 0 to 1, to "
        f"{' and '.join(found)} of {', '.join(description.classes)}",
        f"largest difference from torch on {len(images)} random images: {largest:.2g} (accepted: {TOLERANCE:g})",
    ]


FORMATS = {"onnx": Format(SUFFIX, _onnx_metadata, _write_onnx)}


@dataclass(frozen=True)
class ExportOptions(Options):
    """The options of `weights export`."""

    SHARED: ClassVar[tuple[str, ...]] = ("out", "threads", "force", "dry_run", "quiet")
    WRITES_FILE: ClassVar[bool] = True

    model: Path = argument("A model folder, such as a fold of a run.", metavar="MODEL")
    format: str = option("Format of the file: {choices}.", "onnx", choices=FORMATS)


def run(options: ExportOptions, settings: Settings) -> None:
    """Export a model."""
    export(options, settings)


def export(options: ExportOptions, settings: Settings) -> None:
    """Write a model as one file, after its probabilities were compared with those of torch.

    Raises:
        InputError: There is no such model, it cannot be exported, or the graph gives other probabilities.
        TakenError: The file would replace an input or what another command made.
        UsageError: MODEL is a run of several folds, or the file has another suffix.
    """
    chosen, out, say = FORMATS[options.format], settings.out, settings.report.say
    if out is None or out.suffix != chosen.suffix:
        found = "none" if out is None else f"'{out.name}'"
        raise UsageError(f"-o: expected a file that ends in {chosen.suffix}, found {found}", f"-o model{chosen.suffix}")
    folder = _one_model(options.model)
    check_file(out, lambda path: bool(chosen.metadata(path)), [folder, options.model], settings)
    description = ModelDescription.read(folder)
    chain = locate(description.chain, folder)
    wanted = _wanted(folder, description, chain)
    current = out.is_file() and chosen.metadata(out) == wanted.metadata
    if current and not settings.force and _has_parts(out, description):
        say(f"{out}: up to date, nothing to do")
        return
    if settings.dry_run:
        say(f"would export {folder} to {out}")
        return
    from cxrtool.training.checkpoint import load_model

    network, _ = load_model(folder)
    parts = parts_of(out)
    fresh = not parts.exists()
    try:
        with atomic_path(out) as temporary:
            lines = chosen.write(temporary, network, wanted, settings)
            # Before the file, which is complete once it has its name.
            with saying_what_fails(parts):
                copy_parts(chain, out)
    except BaseException:
        if fresh:
            shutil.rmtree(parts, ignore_errors=True)
        raise
    say(f"{out}: {description.network.get('name')}, {out.stat().st_size / 1e6:.1f} MB")
    for line in lines:
        say(line)
    if parts.is_dir():
        say(f"{parts}: networks of its preprocessing; keep it beside the file")
    if fitted_on(folder) is None:
        settings.report.warn("its training images are not known, so leakage of test images cannot be found")
    say(f"next: cxrtool predict {out} IMAGES")


def _one_model(path: Path) -> Path:
    if is_exported(path):
        raise InputError(f"{path}: expected a model folder, found a file that is exported already")
    folders: Sequence[Path] = model_folders(path, partial=True)
    if len(folders) != 1:
        raise UsageError(f"{path}: expected one model, found a run of {len(folders)} folds", f"name one: {folders[0]}")
    return folders[0]


def _wanted(folder: Path, description: ModelDescription, chain: Chain) -> Wanted:
    fitted: Mapping[str, Any] = description.calibration or {"reason": "none"}
    temperature = None if fitted.get("reason") else float(fitted["temperature"])
    made_from = {
        "weights": description.trained.get("weights"),
        "licence": _licence(description),
        "sha256": sha256_file(folder / MODEL_WEIGHTS),
    }
    metadata = to_metadata(description.to_json(), fitted_on(folder), made_from)
    return Wanted(description, 3 if ends_with_twins(chain) else 1, temperature, metadata)


def _licence(description: ModelDescription) -> str | None:
    """The licence of the ImageNet weights of timm; None where the weights are others, or it is not known."""
    from cxrtool.models.pretrained import published
    from cxrtool.models.registry import BUILT_IN

    name = str(description.network.get("name"))
    if name in BUILT_IN or not str(description.trained.get("weights", "")).startswith("ImageNet"):
        return None
    known = published(name)
    return known.licence or None if known else None


def _has_parts(out: Path, description: ModelDescription) -> bool:
    try:
        locate(description.chain, out)
    except InputError:
        return False
    return True
