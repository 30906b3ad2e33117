"""`weights`: take in a network that was trained elsewhere, fetch ImageNet weights, list what there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cxrtool
from cxrtool.data.files import sha256_file
from cxrtool.data.tables.manifest import Manifest, Row, read_manifest, write_table
from cxrtool.errors import CxrtoolError, InputError, UsageError
from cxrtool.flow.calibration import IMPORTED, undecided
from cxrtool.flow.fold_training import FITTED_COLUMNS
from cxrtool.flow.folder import Build, Inputs, Plan, StepFolder
from cxrtool.flow.seen import FITTED
from cxrtool.flow.settings import Settings

if TYPE_CHECKING:
    from cxrtool.models.registry import Architecture

MODEL_FILE = "model.json"
FITS = ("squash", "pad", "crop")
LIBRARIES = ("torch", "timm")

MAKRIS = (
    "vgg16", "vgg19", "mobilenetv2_100", "inception_v3", "legacy_xception", "inception_resnet_v2", "densenet201",
    "resnetv2_101", "nasnetalarge",
)  # fmt: skip
"""The nine networks of Makris et al. 2020 by timm's names; the paper's ResNet152V2 has no ImageNet weights in timm, and
ResNet101V2 stands for it."""

SHIPPED = Path(cxrtool.__file__).parent / "weights"
MARKER = "part.json"
COLUMNS = ("name", "weights", "licence", "on this machine", "where")


@dataclass(frozen=True)
class ImportOptions:
    """The options of `weights import`.

    Attributes:
        file: The checkpoint.
        model: Which network it is of; a name of timm, or one of ours.
        classes: What each output means, in order, separated by commas.
        size: Side of the square input in pixels; None takes the network's own.
        fit: How a picture becomes square.
        mean: Per channel, of values in [0, 1], separated by commas, or one for all; None takes timm's.
        std: As `mean`.
        fitted_on: A manifest of the images it was trained on.
    """

    file: Path
    model: str
    classes: str
    size: int | None = None
    fit: str = "squash"
    mean: str | None = None
    std: str | None = None
    fitted_on: Path | None = None


def import_model(options: ImportOptions, settings: Settings) -> None:
    """Make a model folder of a network that was trained elsewhere.

    Raises:
        InputError: The file is not there, cannot be read safely, or is not of this network and these classes.
        OutputError: Something else has the output's name.
        StrictError: `--strict`, and an image of `--fitted-on` could not be read.
        UsageError: An option is wrong.
    """
    from cxrtool.models.registry import Architecture, check, native_size

    classes = _classes(options.classes)
    if options.fit not in FITS:
        raise UsageError(f"--fit: expected one of {', '.join(FITS)}, found '{options.fit}'")
    if not options.file.is_file():
        raise InputError(f"{options.file}: no such file", "expected a .pth, .pt or .safetensors file")
    check(Architecture(options.model, len(classes)), "none")
    size = options.size if options.size is not None else native_size(options.model)
    architecture = Architecture(options.model, len(classes), size=size)
    check(architecture, "none")
    form, whose = _normalisation(options)
    manifest = read_manifest(options.fitted_on, root=settings.root) if options.fitted_on else None
    inputs = Inputs.of(manifest, files=[options.file], verify=settings.verify)
    identity = {
        "action": "import", "file": options.file.name, "model": options.model, "classes": classes, "size": size,
        "fit": options.fit, **form, "fitted_on": manifest is not None,
    }  # fmt: skip
    folder = StepFolder(settings.out, Plan("weights", identity, inputs, (), LIBRARIES), settings, marker=MODEL_FILE)
    if not folder.needs_work():
        return
    with folder.build() as build:
        facts = _save(options, architecture, classes, form, build)
        if manifest is not None:
            list_images(build, manifest, settings)
        build.close(counts={"parameters": facts["parameters"], "fitted_on": len(manifest) if manifest else 0})
    say = settings.report.say
    say(f"{folder.shown}: {options.model} for {size} x {size} pixels, {facts['parameters']:,} parameters")
    say(f"classes, in the order of its outputs: {', '.join(classes)}")
    say(f"mean {_numbers(form['mean'])}, standard deviation {_numbers(form['std'])} ({whose})")
    say(f"from {facts['weights']}, sha256 {facts['sha256']}")
    if manifest is None:
        settings.report.warn(
            "what it was trained on is not known, so no leakage of test images can be found; "
            "--fitted-on MANIFEST tells it"
        )
    say(f"next: cxrtool predict {folder.shown} IMAGES")


def _save(
    options: ImportOptions, architecture: Architecture, classes: list[str], form: dict[str, list[float]], build: Build
) -> dict[str, Any]:
    from cxrtool.models.complexity import try_out
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
    description = {
        "classes": classes,
        "architecture": architecture.to_json(),
        "chain": [],
        "input": {"size": architecture.size, "fit": options.fit},
        "normalization": form,
        # Without its training images nobody knows what is usual to it.
        "usual": None,
        **undecided(IMPORTED),
        "trained": facts,
    }
    save_model(build.path, network, description)
    return facts


def _classes(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    twice = [name for name in names if names.count(name) > 1]
    if len(names) < 2 or not all(names) or twice:
        found = f"'{twice[0]}' twice" if twice and twice[0] else f"'{text}'"
        raise UsageError(f"--classes: expected two or more different names, such as covid,normal, found {found}")
    return names


def _normalisation(options: ImportOptions) -> tuple[dict[str, list[float]], str]:
    """Mean and standard deviation per channel, and in words whose they are.

    Raises:
        UsageError: A text is no list of numbers, of another length than the network's channels, or out of range.
    """
    from cxrtool.models.registry import OWN, input_form

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
                "what was computed on values up to 255 has to be divided by 255",
            )
        form[name] = values
    whose = f"{'the usual' if options.model in OWN else 'those of timm'} for {options.model}"
    if given:
        whose = "as given" if len(given) == 2 else f"--{given[0]} as given, the other {whose}"
    else:
        whose += "; --mean and --std give others"
    return form, whose


def list_images(build: Build, manifest: Manifest, settings: Settings) -> None:
    """Write `fitted_on.csv`; pixels without a digest in the manifest are read for one."""
    from functools import partial

    from cxrtool.flow.chain import decode
    from cxrtool.flow.parallel import map_items

    bare = [row for row in manifest.rows if not row.get("sha256")]
    work = partial(decode, chain=[], size=16, fit="squash")
    known: dict[str, str] = {}
    with settings.report.progress("reading", len(bare)) as advance:
        results = map_items(
            work,
            [Path(row["path"]) for row in bare],
            workers=settings.workers,
            preload=("cxrtool.data.reading.images",),
        )
        for row, (_, result) in zip(bare, results, strict=True):
            if isinstance(result, CxrtoolError):
                # Its patient counts all the same.
                build.reject(row["path"], result.message)
            else:
                known[row["image_id"]] = result[1]
            advance(1)
    rows: list[Row] = [
        {
            "image_id": row["image_id"],
            "patient_id": row.get("patient_id", ""),
            "sha256": row.get("sha256") or known.get(row["image_id"], ""),
            "repeat": "",
            "fold": "",
            "subset": "train",
        }
        for row in manifest.rows
    ]
    write_table(build.path / FITTED, FITTED_COLUMNS, rows)


def fetch(names: Sequence[str], settings: Settings) -> None:
    """Fetch the ImageNet weights of timm networks into the cache of timm's hub, or one network's to `settings.out`.

    Raises:
        InputError: They could not be fetched.
        UsageError: timm knows no such network, or has no weights for it.
    """
    from cxrtool.models.pretrained import Published, hub_folder, published
    from cxrtool.models.registry import Architecture, build

    out, say = settings.out, settings.report.say
    if out is not None and (len(names) != 1 or out.suffix != ".safetensors"):
        raise UsageError(
            f"-o {out}: expected one network and a file that ends in .safetensors, found {len(names)} "
            f"and '{out.suffix or out.name}'",
            "without -o they go into the cache, where `train --weights imagenet` finds them",
        )
    wanted: list[Published] = []
    for name in names:
        entry = published(name)
        if entry is None:
            raise UsageError(
                f"there are no ImageNet weights for {name} in timm", "`cxrtool weights list` shows what there is"
            )
        wanted.append(entry)
    for entry in wanted:
        if entry.place and out is None and not settings.force:
            say(f"{entry.name}: there already, {_megabytes(entry.place)} at {entry.place}")
            continue
        if settings.dry_run:
            say(f"would fetch {entry.weights} to {out or hub_folder()}")
            continue
        try:
            # By the very way that `train` takes, and it is loaded: a damaged file is noticed here, not in the queue.
            network, _ = build(Architecture(entry.name, entry.classes), weights="imagenet")
        except InputError as error:
            raise InputError(
                error.message.removeprefix("--weights imagenet: "),
                "run this where there is a network connection, such as a login node (a proxy is taken from "
                "HTTPS_PROXY)",
            ) from error
        if out is None:
            _tell_of_cache(published(entry.name), settings)
        else:
            _write(network.state_dict(), out)
            say(f"{out}: {entry.weights}, {_megabytes(out)}; next: train --model {entry.name} --weights {out}")


def _tell_of_cache(entry: Any, settings: Settings) -> None:
    size = f"{_megabytes(entry.place)} at {entry.place}" if entry.place else "in timm's cache"
    settings.report.say(f"{entry.name}: {entry.weights}, {size}; `train --weights imagenet` finds it without a network")


def _write(state: dict[str, Any], out: Path) -> None:
    from safetensors.torch import save_file

    from cxrtool.data.files import atomic_path

    with atomic_path(out) as temporary:
        # By timm's own names, so that timm can load it too.
        save_file({name.removeprefix("timm."): value.contiguous() for name, value in state.items()}, temporary)


def list_weights(settings: Settings) -> list[list[str]]:
    """A row for each of the weights that cxrtool knows of, as `COLUMNS`."""
    from cxrtool.models.pretrained import hub_folder, published

    rows = [_shipped(place) for place in sorted(SHIPPED.glob(f"*/{MARKER}"))]
    if not rows:
        settings.report.say("with cxrtool itself come no weights yet")
    settings.report.say(f"ImageNet weights of the networks of Makris et al. 2020; the cache is {hub_folder()}")
    for name in MAKRIS:
        entry = published(name)
        if entry is None:
            rows.append([name, "none in timm", "", "", ""])
        else:
            there = ["yes", str(entry.place)] if entry.place else ["no", f"cxrtool weights fetch {name}"]
            rows.append([name, entry.weights, entry.licence, *there])
    return rows


def _shipped(place: Path) -> list[str]:
    """The row of a part that comes with cxrtool, with what its `part.json` tells of how good it is."""
    from cxrtool.models.parts import read_part

    folder = place.parent
    part = read_part(folder, folder.name.partition("-")[0])
    figures = part.description.get("figures") or {}
    told = ", ".join(f"{name.replace('_', ' ')} {_figure(value)}" for name, value in figures.items())
    what = f"{part.kind}: {part.network}" + (f" ({told})" if told else "")
    return [folder.name, what, str(part.description.get("licence", "")), "yes", str(folder)]


def _figure(value: object) -> str:
    if isinstance(value, dict):
        return str(value["value"]) if "value" in value else ", ".join(f"{k} {_figure(v)}" for k, v in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _megabytes(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"


def _numbers(values: Sequence[float]) -> str:
    shown = values[:1] if len(set(values)) == 1 else values
    return " ".join(f"{value:g}" for value in shown)
