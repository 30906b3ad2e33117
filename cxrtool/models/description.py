"""`model.json`: the description of a trained network beside its weights. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from cxrtool.data.digests import check
from cxrtool.data.file_names import MODEL
from cxrtool.data.structured import load_json
from cxrtool.data.tables.ids import fault_of_text, shown
from cxrtool.errors import InputError
from cxrtool.imaging.fits import FITS
from cxrtool.models.architecture import Architecture
from cxrtool.models.onnx_file import is_exported, read_content

SCHEMA = 1
REQUIRED = ("classes", "architecture", "chain", "input", "normalization")
OPTIONAL = ("calibration", "thresholds", "usual", "trained")
AGAIN = "train the model again"


def _wrong_classes(value: Any) -> str:
    good = isinstance(value, list) and value and all(isinstance(name, str) and name.strip() for name in value)
    if not good:
        return "a list of names, found none or an empty one"
    if broken := next((name for name in value if fault_of_text(name)), ""):
        return f"names of one line, found {fault_of_text(broken)} in {shown(broken)}"
    twice = next((name for name in value if value.count(name) > 1), None)
    return "" if twice is None else f"every class once, found '{twice}' {value.count(twice)} times"


def _wrong_object(value: Any) -> str:
    return "" if value is None or isinstance(value, dict) else f"names and values, found {value!r:.60}"


def _wrong_chain(value: Any) -> str:
    if not (isinstance(value, list) and all(isinstance(entry, dict) and "step" in entry for entry in value)):
        return "a list of steps, found something else"
    # A part is looked for under its kind and digest, which must not lead elsewhere.
    wrong = next((entry["part"] for entry in value if "part" in entry and not _is_part(entry["part"])), None)
    return "" if wrong is None else f"parts with a kind, a network and a sha256, found {wrong!r:.60}"


def _is_part(value: Any) -> bool:
    good = isinstance(value, dict) and all(isinstance(value.get(name), str) for name in ("kind", "network", "sha256"))
    return good and value["kind"].isalpha() and value["sha256"].isalnum()


def _wrong_input(value: Any) -> str:
    good = isinstance(value, dict) and value.keys() == {"size", "fit"} and value["fit"] in FITS
    good = good and type(value["size"]) is int and value["size"] > 0
    return "" if good else f"a size in pixels and a fit ({', '.join(FITS)}), found {value!r:.60}"


def _wrong_normalization(value: Any) -> str:
    good = isinstance(value, dict) and value.keys() == {"mean", "std"}
    good = good and all(isinstance(one, list) and all(map(_is_number, one)) for one in value.values())
    good = good and 0 < len(value["mean"]) == len(value["std"]) and all(std > 0 for std in value["std"])
    return "" if good else f"a mean and an std above 0 for each channel, found {value!r:.60}"


def _wrong_calibration(value: Any) -> str:
    temperature = value.get("temperature") if isinstance(value, dict) else None
    good = value is None or (temperature is not None and _is_number(temperature) and temperature > 0)
    return "" if good else f"a temperature above 0, found {temperature if isinstance(value, dict) else value!r:.60}"


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


_ENTRIES: dict[str, Callable[[Any], str]] = {
    "schema": lambda value: "",
    "classes": _wrong_classes,
    "architecture": lambda value: "a network, found none" if value is None else _wrong_object(value),
    "chain": _wrong_chain,
    "input": _wrong_input,
    "normalization": _wrong_normalization,
    "calibration": _wrong_calibration,
    "thresholds": _wrong_object,
    "usual": _wrong_object,
    "trained": _wrong_object,
}
"""The entries of the file, each with a function that returns what is expected and what was found, if it is wrong."""


@dataclass(frozen=True)
class Input:
    """The input of a network: a square of `size` pixels; `fit` is a name of `imaging.fits.FITS`."""

    size: int
    fit: str

    def __str__(self) -> str:
        return f"{self.size} pixels, {self.fit}"


@dataclass(frozen=True)
class Normalization:
    """Mean and standard deviation of each channel, of grey values in [0, 1]."""

    mean: list[float]
    std: list[float]


@dataclass(frozen=True)
class ModelDescription:
    """A trained network.

    Attributes:
        classes: Names, in the order of the outputs.
        network: The fields of `Architecture`.
        chain: The processing steps of its training images.
        calibration: The temperature from its validation images, as `Temperature.as_json`; None if it was not fitted.
        thresholds: By class and sensitivity, from the validation images.
        usual: Input statistics of its training images (`imaging.plausibility`); None if they are not known.
        trained: Preset, source of the weights, epoch, target.
    """

    classes: list[str]
    network: Mapping[str, Any]
    chain: Sequence[Mapping[str, Any]]
    input: Input
    normalization: Normalization
    calibration: Mapping[str, Any] | None = None
    thresholds: Mapping[str, Any] | None = None
    usual: Mapping[str, Any] | None = None
    trained: Mapping[str, Any] = field(default_factory=dict)

    @property
    def target(self) -> str:
        """The column of the manifest that was learned, as `train --target` reads it; empty for `label`."""
        return str(self.trained.get("target", ""))

    @property
    def architecture(self) -> Architecture:
        """The architecture.

        Raises:
            TypeError: A field is unknown or missing.
        """
        return Architecture(**self.network)

    @classmethod
    def from_json(cls, content: Mapping[str, Any], path: Path) -> Self:
        """Read the content of a file.

        Raises:
            InputError: It is of another schema, or an entry is missing or wrong.
        """
        if content.get("schema") != SCHEMA:
            found = content.get("schema")
            raise InputError(f"{path}: expected schema {SCHEMA}, found {found}", "use a matching cxrtool")
        missing = [name for name in REQUIRED if name not in content]
        if missing:
            raise InputError(f"{path}: expected an entry '{missing[0]}', found none", "train the model again")
        for name, value in content.items():
            if name not in _ENTRIES:
                raise InputError(f"{path}: expected the entries {', '.join(_ENTRIES)}, found '{name}'", AGAIN)
            if name != "schema" and (wrong := _ENTRIES[name](value)):
                raise InputError(f"{path}: expected in '{name}' {wrong}", AGAIN)
        classes = content["classes"]
        if content["architecture"].get("classes", len(classes)) != len(classes):
            outputs = content["architecture"]["classes"]
            raise InputError(f"{path}: expected {outputs} classes as the network has, found {len(classes)}", AGAIN)
        known = {"network": content["architecture"], **{name: content[name] for name in ("classes", "chain")}}
        known |= {name: content[name] for name in OPTIONAL if name in content}
        return cls(input=Input(**content["input"]), normalization=Normalization(**content["normalization"]), **known)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the description of a model folder, or that in an ONNX file.

        Raises:
            InputError: There is none, it is of another schema, or an entry is missing or wrong.
        """
        if is_exported(folder):
            return cls.from_json(read_content(folder), folder)
        path = Path(folder) / MODEL
        check(path)
        try:
            content = load_json(path)
        except OSError as error:
            raise InputError(
                f"{folder}: expected a model folder with {MODEL} in it, found none",
                "a model folder is a fold of a run, such as run/r0f0",
            ) from error
        except ValueError as error:
            raise InputError(f"{path}: not readable JSON: {error}") from error
        if not isinstance(content, dict):
            raise InputError(f"{path}: expected the description of a model, found another kind of JSON")
        return cls.from_json(content, path)

    def to_json(self) -> dict[str, Any]:
        """The content of the file."""
        content: dict[str, Any] = {
            "schema": SCHEMA,
            "classes": self.classes,
            "architecture": self.network,
            "chain": list(self.chain),
            "input": asdict(self.input),
            "normalization": asdict(self.normalization),
        }
        if self.calibration is not None:
            content |= {"calibration": self.calibration, "thresholds": self.thresholds}
        content |= {"trained": dict(self.trained)} if self.trained else {}
        return {**content, "usual": self.usual}
