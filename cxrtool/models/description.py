"""`model.json`: the description of a trained network beside its weights. Needs no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from cxrtool.data.file_names import MODEL
from cxrtool.errors import InputError
from cxrtool.models.architecture import Architecture

SCHEMA = 1
REQUIRED = ("classes", "architecture", "chain", "input", "normalization")


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
        trained: Preset, source of the weights, epoch.
        more: Other entries of the file.
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
    more: Mapping[str, Any] = field(default_factory=dict)

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
        known = {"network": content["architecture"], **{name: content[name] for name in ("classes", "chain")}}
        optional = ("calibration", "thresholds", "usual", "trained")
        known |= {name: content[name] for name in optional if name in content}
        rest = {name: value for name, value in content.items() if name not in (*REQUIRED, *optional, "schema")}
        try:
            form, values = Input(**content["input"]), Normalization(**content["normalization"])
        except TypeError as error:
            raise InputError(f"{path}: 'input' or 'normalization' is not as expected: {error}") from error
        return cls(input=form, normalization=values, more=rest, **known)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the description of a model folder.

        Raises:
            InputError: There is none, it is of another schema, or an entry is missing or wrong.
        """
        path = Path(folder) / MODEL
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
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
        return {**content, **self.more, "usual": self.usual}
