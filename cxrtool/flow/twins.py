"""The generators of every fold: their folders, whether they match a manifest, and whether they saw a test image.

`fit generators` writes a run whose folds hold them. A twin is valid only in the fold of its generators.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrtool.data.file_names import PART, SPLITS
from cxrtool.data.splitting.splits import known_as, valid_in
from cxrtool.data.tables.manifest import Manifest, Row
from cxrtool.data.tables.twins import is_twin, twin_class, twin_classes
from cxrtool.errors import InputError, LeakageError
from cxrtool.flow import run as runs
from cxrtool.flow.assignment import Seen, refuse_twice
from cxrtool.flow.chain import TRANSFORM, Chain, canonical, chain_of, describe, of_fold
from cxrtool.flow.folder import AT, read_run_file, without_paths
from cxrtool.flow.settings import Settings
from cxrtool.flow.signals import StopRequest

if TYPE_CHECKING:
    import numpy as np

    from cxrtool.imaging.fits import Form
    from cxrtool.models.parts import Part
    from cxrtool.training.store import Store


KIND = "generators"
VERSION = 2
"""Of the entry in a chain; is increased when the same generators give other pixels."""

FIT = "`cxrtool fit generators MANIFEST --splits SPLITS -o RUN` fits them in every fold"


@dataclass(frozen=True)
class FoldGenerators:
    """The generators of one fold of the splits."""

    repeat: str
    fold: str
    part: Part

    @property
    def name(self) -> str:
        """The fold's folder."""
        return runs.fold_name(self.repeat, self.fold)

    @property
    def classes(self) -> list[str]:
        """The names of the generators, in order."""
        return classes_of(self.part)

    @property
    def form(self) -> Form:
        """The form of their input."""
        return self.part.form

    def entry(self) -> dict[str, Any]:
        """Their entry in a chain, with their path."""
        return {"step": TRANSFORM, "version": VERSION, "part": self.part.identity(), AT: str(self.part.folder)}

    def refuse_seen(self, tested: Sequence[Row], settings: Settings) -> None:
        """Refuse test images that the generators, or their choice, saw: a `LeakageError` or, if allowed, a warning."""
        seen = Seen.of([self.part.folder])
        found = [row["image_id"] for row in tested if seen.by(row)]
        if not found:
            return
        text = (
            f"fold {self.name}: its generators were fitted on {len(found)} of its {len(tested)} test images, or on "
            f"their patients, such as {found[0]}"
        )
        if not settings.allow_leakage:
            raise LeakageError(text, "fit them with the same splits: `cxrtool fit generators MANIFEST --splits SPLITS`")
        settings.report.warn(text)


def classes_of(part: Part) -> list[str]:
    """The names of a part's generators, in order."""
    return list(part.description["built_with"]["classes"])


@dataclass(frozen=True)
class GeneratorRun:
    """A run of generators: the folders of its complete folds, and the option that named it, for messages."""

    path: Path
    option: str
    folds: Mapping[tuple[str, str], Path]

    @classmethod
    def find(cls, argument: Path, option: str) -> GeneratorRun:
        """Find the folds of a run, or one fold by its folder; an `InputError` if it is neither."""
        single = runs.is_fold(argument) and (argument / PART).is_file()
        path = argument.absolute().parent if single else argument
        whole = runs.whole_folds(path) if path.is_dir() else []
        if single:
            whole = [pair for pair in whole if pair == runs.parse_fold(argument.name)]
        folds = {pair: path / runs.fold_name(*pair) for pair in whole}
        if (
            not folds
            or not (path / SPLITS).is_file()
            or not all((folder / PART).is_file() for folder in folds.values())
        ):
            made = read_run_file(argument) or {}
            found = (
                f"the output of `cxrtool {made['command']}`" if made else "none" if not folds else "an incomplete one"
            )
            raise InputError(f"{option} {argument}: expected a run of generators or a fold of one, found {found}", FIT)
        return cls(path, f"{option} {argument}", folds)

    @property
    def splits(self) -> Path:
        """The splits with which they were fitted."""
        return self.path / SPLITS

    def identity(self) -> list[str]:
        """What identifies a run of generators, whichever of its folds are complete."""
        made = read_run_file(self.path) or {}
        return [str(made.get(name, "")) for name in ("run_digest", "started")]

    def load(self, wanted: Sequence[tuple[str, str]]) -> list[FoldGenerators]:
        """Read the generators of some folds; an `InputError` if one is missing, or has other classes or size."""
        from cxrtool.models.parts import read_part

        missing = [runs.fold_name(*pair) for pair in wanted if pair not in self.folds]
        if missing:
            shown = ", ".join(runs.fold_name(*pair) for pair in self.folds)
            raise InputError(
                f"{self.option}: expected generators for fold {missing[0]}, found those of {shown}",
                f"{FIT}; --only selects folds",
            )
        found = [FoldGenerators(*pair, read_part(self.folds[pair], KIND)) for pair in wanted]
        for other in found[1:]:
            for what, one, first in (("classes", other.classes, found[0].classes), ("form", other.form, found[0].form)):
                if one != first:
                    raise InputError(
                        f"{self.option}: expected the same {what} in all folds, found {one} in {other.name} and "
                        f"{first} in {found[0].name}"
                    )
        return found

    def check_chain(self, fold: FoldGenerators, chain: Chain, name: str) -> None:
        """Check that images have the processing of those that the generators were fitted on; else an `InputError`."""
        made = read_run_file(self.folds[fold.repeat, fold.fold]) or {}
        fitted = canonical(of_fold(made.get("chain") or [], Path(fold.name)))
        if without_paths(canonical(chain)) != without_paths(fitted):
            raise InputError(
                f"{name} has been through: {describe(canonical(chain))}; the generators of {self.option} were fitted "
                f"on: {describe(fitted)}",
                "use the same images for both",
            )

    def check_labels(self, fold: FoldGenerators, manifest: Manifest, *, exactly: bool) -> None:
        """Check that every label has a generator; with `exactly`, also that every generator has a label."""
        labels = manifest.classes()
        if not set(labels) <= set(fold.classes) or (exactly and set(labels) != set(fold.classes)):
            raise InputError(
                f"{manifest.name}: expected the classes {', '.join(fold.classes)} of {self.option}, found "
                f"{', '.join(labels) or 'none'}",
                "`cxrtool select MANIFEST --relabel a,b=c` renames and merges classes",
            )


def indices_in(manifest: Manifest, placed: Mapping[str, str], pair: tuple[str, str]) -> list[int]:
    """The indices in a manifest of the images that a fold uses.

    `placed` is the fold's subset of each image id.

    Raises:
        InputError: A radiograph is listed twice.
    """
    rows = enumerate(manifest.rows)
    indices = [index for index, row in rows if valid_in(row, pair) and known_as(row, placed)]
    refuse_twice(manifest, indices, placed, runs.fold_name(*pair), "transform one kind of images at a time")
    return indices


def as_classes(manifest: Manifest) -> tuple[Manifest, list[str]]:
    """A manifest with the labels that a classifier learns, and the classes in order.

    A manifest of twins gets the classes of twins; any other is not changed. The generators are in the order in which
    they were fitted.

    Raises:
        InputError: Some of the images are twins and some are not.
    """
    from cxrtool.models.parts import read_part

    twins = [row for row in manifest.rows if is_twin(row)]
    if not twins:
        return manifest, manifest.classes()
    if len(twins) < len(manifest):
        other = next(row for row in manifest.rows if not is_twin(row))
        raise InputError(
            f"{manifest.name}: expected only twins or no twins, found '{twins[0]['image_id']}' and "
            f"'{other['image_id']}'",
            "`cxrtool select --where \"generator = ''\"` selects those that are not twins",
        )
    found = {row["generator"] for row in twins}
    entry = next((entry for entry in chain_of([Path(twins[0]["path"])]) if entry["step"] == TRANSFORM), None)
    generators = [name for name in classes_of(read_part(Path(entry[AT]), KIND)) if name in found] if entry else []
    generators += sorted(found - set(generators))
    rows = [{**row, "label": twin_class(row.get("label", ""), row["generator"])} for row in twins]
    own = Manifest(manifest.columns, rows, manifest.origin, manifest.lines)
    return own, twin_classes(manifest.classes(), generators)


def refuse_twins(manifest: Manifest, option: str) -> None:
    """Raise an `InputError` for a manifest with twins."""
    made = next((row for row in manifest.rows if is_twin(row)), None)
    if made:
        raise InputError(
            f"{manifest.name}: '{made['image_id']}' is already the output of a generator",
            f"use the images before `cxrtool transform` for {option}",
        )


def make_twins(
    settings: Settings,
    fold: FoldGenerators,
    store: Store,
    indices: Sequence[int],
    wanted: Sequence[int],
    request: StopRequest,
) -> Iterator[tuple[int, list[np.ndarray]]]:
    """Make the twins of radiographs.

    `store` has the radiographs at the generators' size, `indices` are those in it that the fold uses, and `wanted` are
    positions in `indices`.

    Yields:
        An element of `wanted`, and its twins (S, S, 3) in the order of the generators, uint8 or uint16.
    """
    from cxrtool.training.device import choose_device, local_randomness, take_turns
    from cxrtool.training.twin_maker import AT_ONCE, TwinMaker

    if not wanted:
        return
    device = choose_device(settings.device)
    with (
        take_turns(device, settings.threads, settings.report.say, request.raise_if_stopped),
        local_randomness(settings.seed, settings.threads),
    ):
        maker = TwinMaker(fold.part.folder, device)
        for start in range(0, len(wanted), AT_ONCE):
            request.raise_if_stopped()
            chosen = wanted[start : start + AT_ONCE]
            yield from zip(chosen, maker.make([store.images[indices[k]] for k in chosen]), strict=True)
