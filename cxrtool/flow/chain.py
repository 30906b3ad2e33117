"""The chain: the preprocessing of an image as data, with the fitted parts that belong to it.

A step folder's `run.json` has its chain; the chain of an image is that of the step folder it is in. `predict` compares
the chain of its input with that of the model and does the missing steps. An entry with `folds` differs between folds:
images in `images/rRfF/` have the values of that fold.

An entry identifies its fitted part by digest (`"part": {"kind", "network", "sha256"}`). The part itself is in `parts/`
beside the `run.json` or `model.json` with the chain, or comes with cxrtool. `locate` adds its path.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cxrtool.data.file_names import FITTED_ON, PART, PART_WEIGHTS
from cxrtool.data.leftovers import remove
from cxrtool.data.splitting.grouping import original_of
from cxrtool.data.tables.manifest import Row, Table
from cxrtool.data.tables.views import RowView
from cxrtool.errors import InputError
from cxrtool.flow.folder import AT, read_run_file, without_paths
from cxrtool.flow.replaying import MOVES, PER_FOLD, REPLAY, STEPS
from cxrtool.flow.run import fold_name
from cxrtool.models.onnx_file import SUFFIX

Chain = list[dict[str, Any]]

FLAGS = {"crop": "--crop", "apply": "--apply-mask", "erase": "--erase-lungs"}
"""The values of `use` in a `segment` entry, and their flags."""

TRANSFORM = "transform"
"""The step that makes several images of one; its networks run in the main process, not in workers."""

_SHOWN_DIGITS = 8


def canonical(chain: Iterable[Mapping[str, Any]]) -> Chain:
    """A chain without the entries that change no pixel, so that equal processing compares equal."""
    return [dict(entry) for entry in chain if not (entry["step"] == "prepare" and entry.get("size") == "native")]


def describe(chain: Sequence[Mapping[str, Any]]) -> str:
    """A chain in words: `prepare --size 512 --fit squash`."""
    words = []
    for entry in without_paths(chain):
        step = entry["step"]
        options = [_option(step, name, value) for name, value in entry.items() if name not in ("step", "version")]
        words.append(" ".join([str(step), *options]))
    return ", then ".join(words) if words else "unprocessed images"


def _option(step: str, name: str, value: Any) -> str:
    """An option of an entry as it is typed; fitted values by the first digits of their digest."""
    if name == "part":
        return f"({value['kind']}: {value['network']} {value['sha256'][:_SHOWN_DIGITS]})"
    if name == "use":
        return " ".join(FLAGS.get(word, word) for word in value.split("+"))
    if isinstance(value, list | dict) or name == PER_FOLD.get(step):
        return f"({name}: {hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:_SHOWN_DIGITS]})"
    return f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}")


def _describe_both(first: Chain, second: Chain) -> tuple[str, str]:
    """Two chains in words; with the versions of their steps where only these differ."""
    texts = describe(first), describe(second)
    if texts[0] != texts[1]:
        return texts

    def versions(chain: Chain) -> str:
        return ", ".join(f"{entry['step']} version {entry.get('version')}" for entry in chain)

    return f"{texts[0]} ({versions(first)})", f"{texts[1]} ({versions(second)})"


def chain_of(paths: Iterable[Path]) -> Chain:
    """The chain of all of these images, located; empty for raw images. An `InputError` if not all have the same."""
    known: dict[Path, Chain] = {}
    found: dict[str, tuple[Chain, Path]] = {}
    for path in paths:
        folder = path.parent
        if folder not in known:
            known[folder] = _chain_of_folder(folder)
        found.setdefault(json.dumps(without_paths(known[folder]), sort_keys=True), (known[folder], path))
    if len(found) > 1:
        (first, one), (second, other) = list(found.values())[:2]
        of_one, of_other = _describe_both(first, second)
        raise InputError(
            f"expected images of one preprocessing, found {one} ({of_one}) and {other} ({of_other})",
            "prepare all of them with the same options, in one `cxrtool prepare`",
        )
    return next(iter(found.values()))[0] if found else []


def _chain_of_folder(folder: Path) -> Chain:
    for ancestor in (folder, *list(folder.parents)[:2]):
        made = read_run_file(ancestor)
        if made is not None and made.get("chain"):
            return locate(canonical(of_fold(made["chain"], folder)), ancestor)
    return []


def of_fold(chain: Iterable[Mapping[str, Any]], folder: Path) -> Chain:
    """A chain with only the values of the fold that a folder is named after."""
    narrowed = []
    for entry in chain:
        if "folds" not in entry:
            narrowed.append(dict(entry))
        elif folder.name in entry["folds"]:
            kept = {name: value for name, value in entry.items() if name != "folds"}
            narrowed.append({**kept, PER_FOLD[entry["step"]]: entry["folds"][folder.name]})
        else:
            raise InputError(
                f"{folder}: its images were made by `{entry['step']}` fold by fold, expected a folder named after "
                f"one of {', '.join(sorted(entry['folds']))}"
            )
    return narrowed


def missing_steps(model: Chain, data: Chain, model_name: str, data_name: str) -> Chain:
    """The steps of the model's chain that the data still lack; parts stay located.

    The caller must be able to do a `transform` at the end, which `before_twins` separates from the rest.

    Raises:
        InputError: The data had other steps; the message shows both chains. Or this version cannot repeat a step.
    """
    model, data = canonical(model), canonical(data)
    if without_paths(model[: len(data)]) != without_paths(data):
        of_data, of_model = _describe_both(data, model)
        raise InputError(
            f"{data_name} has been through: {of_data}; {model_name} was trained on: {of_model}",
            f"use the raw images, which are processed as the model needs, or `cxrtool prepare … --like {model_name}`",
        )
    missing = model[len(data) :]
    unknown = [entry["step"] for entry in before_twins(missing)[0] if entry["step"] not in {*MOVES, *STEPS, *REPLAY}]
    if unknown:
        raise InputError(
            f"{model_name} was trained on: {describe(model)}; this cxrtool cannot repeat '{unknown[0]}' on {data_name}",
            f"run `cxrtool {unknown[0]}` first and use its folder",
        )
    return missing


def before_twins(chain: Chain) -> tuple[Chain, dict[str, Any] | None]:
    """The part of a chain that workers do, and the entry of the generators at its end, or None."""
    return (chain[:-1], chain[-1]) if chain and chain[-1]["step"] == TRANSFORM else (chain, None)


def ends_with_twins(chain: Chain) -> bool:
    """Whether the images of a chain are the output of generators, and so have three channels."""
    return before_twins(chain)[1] is not None


FOLDER = "parts"

COPIED = (PART, PART_WEIGHTS, FITTED_ON)
"""The files of a set of generators that are copied."""


def locate(chain: Sequence[Mapping[str, Any]], folder: Path) -> Chain:
    """A chain, as a file in `folder` has it, with the paths of its parts; an `InputError` where one is missing."""
    return [dict(entry) | ({AT: str(_find(entry["part"], folder))} if "part" in entry else {}) for entry in chain]


def _find(part: Mapping[str, str], folder: Path) -> Path:
    from cxrtool.models.parts import SHIPPED, read_part

    kind = part["kind"]
    for path in (parts_of(folder) / name_of(part), *sorted(SHIPPED.glob(f"{kind}-*"))):
        if path.is_dir() and read_part(path, kind).sha256 == part["sha256"]:
            return path
    raise InputError(
        f"{folder}: its images were made with a {kind} network ({part['network']}, {part['sha256'][:12]}) that is "
        f"neither in {parts_of(folder)} nor among those that come with this cxrtool",
        f"copy its folder from the cxrtool that made them (cxrtool/weights/{kind}-default) to "
        f"{parts_of(folder) / name_of(part)}",
    )


def parts_of(folder: Path) -> Path:
    """The folder of the parts of a step's folder or a model folder; that of an ONNX file is beside it.

    >>> parts_of(Path("models/covid.onnx")).name
    'covid.parts'
    """
    return folder.with_suffix(f".{FOLDER}") if folder.suffix == SUFFIX and not folder.is_dir() else folder / FOLDER


def name_of(part: Mapping[str, str]) -> str:
    """The folder of a part below `parts/`."""
    return f"{part['kind']}-{part['sha256'][:16]}"


def copy_parts(chain: Iterable[Mapping[str, Any]], target: Path) -> None:
    """Copy the parts of a located chain into a folder, or beside an ONNX file; the shipped ones are not copied."""
    from cxrtool.models.parts import SHIPPED

    for entry in chain:
        if AT in entry and Path(entry[AT]).parent != SHIPPED:
            copy = parts_of(target) / name_of(entry["part"])
            if not copy.exists():
                generators = entry["part"]["kind"] == "generators"
                # The folder of a fold also has a classifier, its predictions and figures.
                others = (lambda _, names: set(names) - set(COPIED)) if generators else None
                # Under its own name it is whole.
                fresh = copy.with_name(f".{copy.name}.new")
                remove(fresh)
                shutil.copytree(entry[AT], fresh, ignore=others)
                fresh.rename(copy)


ALL = ""
"""The name of the images that are valid in every fold."""


def own_fold(row: RowView) -> str:
    """The name of the fold for which an image was made, `r0f3`, or `ALL`."""
    return fold_name(row["repeat"], row.get("fold") or "0") if row.get("repeat") else ALL


def radiograph_of(row: Row) -> str:
    """The id in a fold's predictions: for an image that was made for this fold alone, the id of its original.

    So the predictions of a run on such images can be compared with those of any other run on the same splits.
    """
    return original_of(row) if row.get("repeat") else row["image_id"]


def is_divided(manifest: Table) -> bool:
    """Whether some of the images were made for single folds."""
    return any(manifest.column("repeat"))


def chain_of_manifest(manifest: Table) -> Chain:
    """The chain of all images, with `folds` where folds differ; an `InputError` if their preprocessing differs."""
    # The first image of each folder has the chain of all that are in it.
    folds: dict[str, dict[str, Path]] = {}
    for row in manifest.records:
        folds.setdefault(own_fold(row), {}).setdefault(row["path"].rpartition("/")[0], Path(row["path"]))
    return fold_together({name: chain_of(paths.values()) for name, paths in folds.items()})


def chain_of_rows(rows: Sequence[Row]) -> Chain:
    """The chain of the images that one fold uses; an `InputError` if their preprocessing differs."""
    return chain_of(Path(row["path"]) for row in rows)


def fold_together(chains: Mapping[str, Chain]) -> Chain:
    """One chain from those of the folds, by name or `ALL`; an `InputError` if they differ in more than references."""
    joined: Chain = []
    for column in zip(*chains.values(), strict=False):
        first = column[0]
        if all(entry == first for entry in column):
            joined.append(first)
        elif ALL not in chains and all(_shared(entry) == _shared(first) for entry in column):
            fitted = PER_FOLD[first["step"]]
            folds = {name: entry[fitted] for name, entry in zip(chains, column, strict=True)}
            joined.append({**_shared(first), "folds": folds})
    if any(len(chain) != len(joined) for chain in chains.values()):
        names = " and ".join(name or "that of all folds" for name in list(chains)[:2])
        raise InputError(
            f"expected images of one preprocessing, found different preprocessing in the folds, such as {names}",
            "make all of them with the same options, in one command",
        )
    return joined


def _shared(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The values of an entry that must not differ between folds."""
    return {name: value for name, value in entry.items() if name not in (PER_FOLD.get(entry["step"]), AT)}
