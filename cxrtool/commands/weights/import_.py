"""Make a model folder from a network that was trained with another program.

Reads a checkpoint of timm, including the head. predict and explain use the folder like any other model. No code in the
file is run. With --fitted-on the training images are listed, and refused as test images.

With --kind ribs it makes a part from the published weights of a rib-suppressing network (model.index beside
model.data-00000-of-00001), for `enhance --ribs`; TensorFlow is not needed.

Example: cxrtool weights import best.pth --model resnet50 --classes covid,normal --size 224 -o model
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cxrtool.commands.weights.images import list_images
from cxrtool.commands.weights.part import PARTS, import_part
from cxrtool.data.file_names import MODEL
from cxrtool.data.files import no_such, sha256_file
from cxrtool.data.tables.manifest import read_manifest
from cxrtool.errors import InputError, UsageError
from cxrtool.flow.fold_training import IMPORTED, undecided
from cxrtool.flow.folder import Build, Inputs, Plan, StepFolder
from cxrtool.flow.settings import READING, Settings
from cxrtool.imaging.fits import FITS
from cxrtool.options import Options, argument, declared, flag_of, option

if TYPE_CHECKING:
    from cxrtool.models.architecture import Architecture

LIBRARIES = ("torch", "timm")

OF_PARTS = ("file", "kind", "fitted_on")
"""The options of an import of a part; the rest is known."""


@dataclass(frozen=True)
class ImportOptions(Options):
    """The options of `weights import`."""

    SHARED: ClassVar[tuple[str, ...]] = ("out", "workers", *READING, "force", "dry_run", "quiet")

    file: Path = argument(
        "A .pth, .pt or .safetensors file; with --kind ribs a TensorFlow checkpoint or an .npz.", metavar="FILE"
    )
    kind: str | None = option("Import a part instead of a classifier: ribs, for enhance.", None, choices=PARTS)
    model: str = option("Name of the network in timm.", "")
    classes: str = option("Classes in the order of the outputs.", "", metavar="A,B,C")
    size: int | None = option("Side of the input in pixels.", None, shown="the network's own")
    fit: str = option("How an image becomes square: squash, pad or crop.", "squash", choices=FITS)
    mean: str | None = option("Mean of grey values from 0 to 1.", None, metavar="R,G,B", shown="timm's")
    std: str | None = option("Standard deviation of grey values from 0 to 1.", None, metavar="R,G,B", shown="timm's")
    fitted_on: Path | None = option("Images that it was trained on.", None, metavar="MANIFEST", shown="not known")


def run(options: ImportOptions, settings: Settings) -> None:
    """Import a network or, with `--kind`, a part.

    Raises:
        UsageError: An option is missing, or is not possible for a part.
    """
    if options.kind is None:
        if not options.model or not options.classes:
            raise UsageError(
                "`weights import` needs one file, --model and --classes",
                "for instance cxrtool weights import best.pth --model resnet50 --classes covid,normal -o model",
            )
        import_model(options, settings)
        return
    for name, (_, declaration) in declared(ImportOptions).items():
        if name not in OF_PARTS and settings.origins.get(name, "default") != "default":
            raise UsageError(f"`weights import --kind` takes no {flag_of(name, declaration)}")
    import_part(options.file, options.kind, options.fitted_on, settings)


def import_model(options: ImportOptions, settings: Settings) -> None:
    """Make a model folder from a network that was trained with another program.

    Raises:
        InputError: The file is not there, cannot be read safely, or is not of this network and these classes.
        OutputError: The output exists and was not made by this command.
        StrictError: `--strict`, and an image of `--fitted-on` could not be read.
        UsageError: An option is wrong.
    """
    from cxrtool.models.architecture import Architecture
    from cxrtool.models.registry import check, native_size

    classes = _classes(options.classes)
    if not options.file.is_file():
        raise InputError(no_such(options.file), "expected a .pth, .pt or .safetensors file")
    check(Architecture(options.model, len(classes)), "none")
    size = options.size if options.size is not None else native_size(options.model)
    architecture = Architecture(options.model, len(classes), size=size)
    check(architecture, "none")
    form, source = _normalisation(options)
    manifest = read_manifest(options.fitted_on, root=settings.root) if options.fitted_on else None
    inputs = Inputs.of(manifest, files=[options.file], verify=settings.verify)
    identity = {
        "action": "import",
        "file": options.file.name,
        "model": options.model,
        "classes": classes,
        "size": size,
        "fit": options.fit,
        **form,
        "fitted_on": manifest is not None,
    }
    folder = StepFolder(settings.out, Plan("weights", identity, inputs, (), LIBRARIES), settings, marker=MODEL)
    if not folder.needs_work():
        return
    with folder.build() as build:
        facts = _save(options, architecture, classes, form, build)
        if manifest is not None:
            list_images(build, manifest, settings)
        build.close(counts={"parameters": facts["parameters"], "fitted_on": len(manifest) if manifest else 0})
    say = settings.report.say
    say(f"{folder.shown}: {options.model} for {size} x {size} pixels, {facts['parameters']:,} parameters")
    say(f"classes in the order of its outputs: {', '.join(classes)}")
    say(f"mean {_numbers(form['mean'])}, standard deviation {_numbers(form['std'])} ({source})")
    say(f"from {facts['weights']}, sha256 {facts['sha256']}")
    if manifest is None:
        settings.report.warn(
            "its training images are not known, so leakage of test images cannot be found; "
            "--fitted-on MANIFEST adds them"
        )
    say(f"next: cxrtool predict {folder.shown} IMAGES")


def _save(
    options: ImportOptions, architecture: Architecture, classes: list[str], form: dict[str, list[float]], build: Build
) -> dict[str, Any]:
    from cxrtool.models.complexity import try_out
    from cxrtool.models.description import Input, ModelDescription, Normalization
    from cxrtool.models.foreign import holds_averaged, load_whole
    from cxrtool.models.network import count_parameters
    from cxrtool.models.registry import build as build_network
    from cxrtool.training.checkpoint import save_model

    network, _ = build_network(architecture)
    load_whole(network, options.file, classes)
    try_out(network, architecture, len(form["mean"]))
    averaged = " (the moving average of its weights)" if holds_averaged(options.file) else ""
    facts = {
        "preset": None,
        "weights": options.file.name + averaged,
        "epoch": None,
        "sha256": sha256_file(options.file),
        "parameters": count_parameters(network)["parameters"],
    }
    # Without its training images the input statistics are not known.
    description = ModelDescription(
        classes,
        architecture.to_json(),
        [],
        Input(architecture.size, options.fit),
        Normalization(**form),
        **undecided(IMPORTED),
        trained=facts,
    )
    save_model(build.path, network, description)
    return facts


def _classes(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    twice = [name for name in names if names.count(name) > 1]
    if len(names) < 2 or not all(names) or twice:
        found = f"'{twice[0]}' listed twice" if twice and twice[0] else f"'{text}'"
        raise UsageError(f"--classes: expected two or more different names, such as covid,normal, found {found}")
    return names


def _normalisation(options: ImportOptions) -> tuple[dict[str, list[float]], str]:
    """Mean and standard deviation per channel, and their source as text.

    Raises:
        UsageError: A text is not a list of numbers, of another length than the network's channels, or out of range.
    """
    from cxrtool.models.registry import BUILT_IN, input_form

    form = input_form(options.model, "native")
    given = [name for name in ("mean", "std") if getattr(options, name) is not None]
    for name in given:
        text, channels = getattr(options, name), len(form[name])
        try:
            values = [float(part) for part in text.split(",")]
        except ValueError:
            values = []
        values = values * channels if len(values) == 1 else values
        if len(values) != channels:
            raise UsageError(f"--{name}: expected {channels} numbers, or one for all channels, found '{text}'")
        if not all(0 <= value <= 1 and (value or name == "mean") for value in values):
            raise UsageError(
                f"--{name}: expected values for grey values from 0 to 1, such as {form[name][0]:g}, found '{text}'",
                "divide values for grey levels up to 255 by 255",
            )
        form[name] = values
    source = f"{'the defaults' if options.model in BUILT_IN else 'those of timm'} for {options.model}"
    if given:
        source = "as given" if len(given) == 2 else f"--{given[0]} as given, the other {source}"
    else:
        source += "; --mean and --std set others"
    return form, source


def _numbers(values: Sequence[float]) -> str:
    shown = values[:1] if len(set(values)) == 1 else values
    return " ".join(f"{value:g}" for value in shown)
