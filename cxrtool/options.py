"""An option of a command, declared once: its type, default, help, choices, and whether it affects the result.

A command's options are a frozen dataclass whose fields are made by `option` and `argument`. The command line,
`--config`, the checks, `run.json`, the digest and the documents derive from it.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from cxrtool.errors import UsageError

Choices = Iterable[str] | Callable[[], Iterable[str]]
"""The values that an option may have: names, a registry of them, or a function that returns them when needed."""

KEY = "option"


@dataclass(frozen=True)
class Declaration:
    """An option, except for its name, type and default.

    Attributes:
        help: One sentence; the choices and the default are added to it.
        flags: As typed; empty takes the field's name.
        choices: The values that it may have; None allows any.
        closed: Whether no other values than `choices` are allowed.
        shown: What the help shows for a default that is decided later; empty shows none.
        effect: Whether another value can give another result: only then it is part of the digest.
        panel: The heading under which the help lists it; empty is that of the command's own options.
    """

    help: str
    argument: bool = False
    flags: tuple[str, ...] = ()
    metavar: str | None = None
    choices: Choices | None = None
    closed: bool = True
    minimum: float | None = None
    maximum: float | None = None
    shown: str | None = None
    effect: bool = True
    envvar: str | None = None
    panel: str = ""

    def known(self) -> list[str]:
        """The values that it may have; empty where any value is allowed."""
        if self.choices is None:
            return []
        return list(self.choices() if callable(self.choices) else self.choices)


def option(help: str, default: Any = MISSING, **more: Any) -> Any:  # noqa: A002
    """A field of an options dataclass that is given as a flag; keywords are those of `Declaration`."""
    return field(default=default, metadata={KEY: Declaration(help, **more)})


def argument(help: str, default: Any = MISSING, **more: Any) -> Any:  # noqa: A002
    """A field of an options dataclass that is positional."""
    return field(default=default, metadata={KEY: Declaration(help, argument=True, **more)})


def again(kind: type, name: str, default: Any, **more: Any) -> Any:
    """Declare an option of another dataclass again, with another default; keywords change its declaration."""
    return field(default=default, metadata={KEY: replace(declared(kind)[name][1], **more)})


def declared(kind: type) -> dict[str, tuple[Field[Any], Declaration]]:
    """The fields of an options dataclass that a user can set; other fields are for callers from Python.

    The fields that a class adds come before those of its parents, also in the help.
    """
    known = {entry.name: (entry, entry.metadata[KEY]) for entry in fields(kind) if KEY in entry.metadata}
    order = dict.fromkeys(name for part in kind.__mro__ for name in inspect.get_annotations(part))
    return {name: known[name] for name in order if name in known}


def flag_of(name: str, declaration: Declaration | None = None) -> str:
    """The long flag of a field.

    >>> flag_of("batch_size")
    '--batch-size'
    """
    flags = declaration.flags if declaration else ()
    return next((text.split("/")[0] for text in flags if text.startswith("--")), f"--{name.replace('_', '-')}")


def did_you_mean(value: object, known: Iterable[str], likeness: float = 0.6) -> str:
    """The end of a message that names the nearest of the known words, in any case; empty where none is near.

    >>> did_you_mean("Severty", ["age", "severity"])
    "; did you mean 'severity'?"
    """
    plain_names = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(str(value).casefold(), plain_names, 1, likeness)
    return f"; did you mean '{plain_names[near[0]]}'?" if near else ""


def one_of(name: str, value: object, known: Iterable[str]) -> None:
    """Raise a `UsageError`, which lists all and suggests the nearest, if a value is not among `known`."""
    names = list(known)
    if value not in names:
        meant = did_you_mean(value, names)
        raise UsageError(f"{name}: expected one of {', '.join(names)}, found '{value}'{meant}")


def exactly_one(ways: Mapping[str, object], hint: str) -> str:
    """The option that was given, of several that exclude one another; a `UsageError` where it is none or several.

    >>> exactly_one({"--folds": 5, "--holdout": None}, "")
    '--folds'
    """
    given = [name for name, value in ways.items() if value is not None]
    if len(given) != 1:
        *names, last = ways
        found = " and ".join(given) or "none"
        raise UsageError(f"expected exactly one of {', '.join(names)} and {last}, found {found}", hint)
    return given[0]


def check_choices(options: Any) -> None:
    """Raise a `UsageError` if a field of an options dataclass is none of its choices; None is no choice yet."""
    for name, (_, declaration) in declared(type(options)).items():
        value = getattr(options, name)
        if value is not None and declaration.choices is not None and declaration.closed:
            shown = (declaration.metavar or name.upper()) if declaration.argument else flag_of(name, declaration)
            one_of(shown, value, declaration.known())


def plain(value: Any) -> Any:
    """A value as JSON stores it: paths as text, tuples as lists."""
    if isinstance(value, Path):
        return str(value)
    return [plain(entry) for entry in value] if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class Options:
    """The base of all options dataclasses; `SHARED` names the fields of `Settings` that the command takes, too.

    `WRITES_FILE` states that `-o` names a file; for other commands it names a folder.
    """

    SHARED: ClassVar[tuple[str, ...]] = ()
    WRITES_FILE: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_choices(self)

    @classmethod
    def build(cls, given: Mapping[str, Any]) -> tuple[Self, dict[str, str]]:
        """Make the options from the values that were given.

        Returns:
            The options, and the origin of each value that came neither from `given` nor from the default.
        """
        preset = cls.preset_of(given)
        values = {name: value for name, value in preset.items() if name not in given}
        return cls(**{**values, **given}), dict.fromkeys(values, "preset")

    @classmethod
    def preset_of(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """The values of a preset that was named: they override the defaults, and `given` overrides them."""
        return {}

    def identity(self) -> dict[str, Any]:
        """The options that affect the result, as plain values: the part of the digest."""
        known = declared(type(self))
        names = [*known, *(entry.name for entry in fields(self) if entry.name not in known)]
        return {name: plain(getattr(self, name)) for name in names if name not in known or known[name][1].effect}
