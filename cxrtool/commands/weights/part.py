"""`weights import --kind`: import the published weights of a part of the preprocessing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrtool.commands.weights.images import list_images
from cxrtool.data.archives import check_archive
from cxrtool.data.file_names import PART
from cxrtool.data.files import sha256_file
from cxrtool.data.tables.manifest import read_manifest
from cxrtool.errors import InputError
from cxrtool.flow.folder import Inputs, Plan, StepFolder
from cxrtool.flow.settings import Settings

if TYPE_CHECKING:
    import numpy as np

PARTS = ("ribs",)
"""The parts with published weights."""

_LARGEST = 1 << 28
"""Largest size of the arrays of an .npz in bytes; those of the published network have a few million."""

NETWORK = "autoencoder"
VERSION = 1
"""Is increased when the same file gives another part."""


def import_part(file: Path, kind: str, fitted_on: Path | None, settings: Settings) -> None:
    """Make a part from published weights, for `enhance --ribs`.

    Args:
        file: Either file of a TensorFlow checkpoint, their folder, or an .npz of plain arrays.
        kind: One of `PARTS`.
        fitted_on: A manifest of the images it was trained on.
        settings: The shared options.

    Raises:
        InputError: The file is missing or damaged, or holds another network.
        OutputError: The output exists and was not made by this command.
        StrictError: `--strict`, and an image of `--fitted-on` could not be read.
    """
    files = _files(file)
    manifest = read_manifest(fitted_on, root=settings.root) if fitted_on else None
    inputs = Inputs.of(manifest, files=files, verify=settings.verify)
    identity = {
        "action": "import",
        "kind": kind,
        "file": file.name,
        "version": VERSION,
        "fitted_on": manifest is not None,
    }
    folder = StepFolder(settings.out, Plan("weights", identity, inputs, (), ("torch",)), settings, marker=PART)
    if not folder.needs_work():
        return
    with folder.build() as build:
        _save(build.path, kind, files)
        if manifest is not None:
            list_images(build, manifest, settings)
        build.close(counts={"fitted_on": len(manifest) if manifest else 0})
    say = settings.report.say
    say(f"{folder.shown}: {kind}, {NETWORK}, from {files[-1].name}, sha256 {sha256_file(files[-1])}")
    if manifest is None:
        settings.report.warn(
            "its training images are not known, so leakage of test images cannot be found; "
            "--fitted-on MANIFEST adds them"
        )
    say(f"next: cxrtool enhance MANIFEST --steps suppress-ribs --ribs {folder.shown} -o enhanced")


def _files(path: Path) -> list[Path]:
    """The files of a path, the one with the values last.

    Raises:
        InputError: There is none, or it is of another kind.
    """
    from cxrtool.models.tensorflow_checkpoint import DATA, INDEX, checkpoint_stem

    stem = checkpoint_stem(path)
    if stem is not None:
        return [stem.with_name(stem.name + end) for end in (INDEX, DATA)]
    if path.suffix == ".npz" and path.is_file():
        return [path]
    found = "another file" if path.is_file() else "a folder without one" if path.is_dir() else "no such file"
    raise InputError(
        f"{path}: expected a TensorFlow checkpoint (NAME{INDEX} beside NAME{DATA}) or an .npz of arrays, found {found}"
    )


def _save(target: Path, kind: str, files: list[Path]) -> None:
    import torch

    from cxrtool.models.parts import networks, save_part
    from cxrtool.models.rib_autoencoder import kernels_of

    known = networks(kind)[NETWORK]
    state = kernels_of(_arrays(files), str(files[-1]))
    module = known.build()
    module.load_state_dict({name: torch.from_numpy(values) for name, values in state.items()})
    description: dict[str, Any] = {"imported": {"file": files[-1].name, "sha256": sha256_file(files[-1])}}
    save_part(target, kind, NETWORK, module, known.form, description)


def _arrays(files: list[Path]) -> dict[str, np.ndarray]:
    """The named arrays of a file.

    Raises:
        InputError: It cannot be read.
    """
    import numpy as np

    from cxrtool.models.tensorflow_checkpoint import checkpoint_stem, read_tensors

    stem = checkpoint_stem(files[0])
    if stem is not None:
        return dict(read_tensors(stem))
    try:
        check_archive(files[0], _LARGEST, "an .npz of arrays")
        with np.load(files[0], allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except InputError:
        raise
    except Exception as error:
        # A damaged array has any of a dozen errors, a MemoryError for its shape among them.
        raise InputError(f"{files[0]}: cannot be read as an .npz of plain arrays: {error}") from error
