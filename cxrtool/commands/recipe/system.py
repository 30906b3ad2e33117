"""A published system as its file in `cxrtool.recipes` describes it: variables, choices and steps."""

from __future__ import annotations

import difflib
import re
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files

from cxrtool.errors import UsageError
from cxrtool.options import one_of

ITEM = "NETWORK"
"""The loop variable of steps that are done for every item of a list, unless a recipe has another name for it."""


def _listed(suffix: str) -> list[str]:
    """The names, without the suffix, of the files of recipes, in order."""
    return sorted(
        entry.name.removesuffix(suffix) for entry in files("cxrtool.recipes").iterdir() if entry.name.endswith(suffix)
    )


def names() -> list[str]:
    """The systems with a recipe."""
    return _listed(".toml")


def formats() -> list[str]:
    """The output formats of a recipe, each with a template."""
    return _listed(".template")


@dataclass(frozen=True)
class Variable:
    """A variable that a user may set: its name, default and description."""

    name: str
    default: str
    help: str


@dataclass(frozen=True)
class Choice:
    """A variable that depends on whether another is empty."""

    name: str
    when: str
    set: str
    unset: str


@dataclass(frozen=True)
class Step:
    """One command of a chain.

    Attributes:
        name: Its name as a target.
        help: What it does, in a line.
        makes: The file below OUT that exists once it is done.
        command: The command line, without the program's own name.
        needs: Files below OUT that it reads.
        each: A list; the command is called for every item.
        over: A list; the command takes all items at once, as `arguments` and as `needs`.
        arguments: The replacement of `{arguments}`, once for each item of `over`.
        forced: It has variables as options, so only the command itself can decide whether it is up to date.
        array: A scheduler runs it as an array over items and folds; such steps follow one another.
    """

    name: str
    help: str
    makes: str
    command: str
    needs: tuple[str, ...] = ()
    each: str = ""
    over: str = ""
    arguments: str = ""
    forced: bool = False
    array: bool = False


@dataclass(frozen=True)
class Recipe:
    """A system as a chain of commands.

    Attributes:
        about: What the paper states and what is ours.
        small: Variables for a quick trial.
        item: The loop variable of steps that are done for every item of a list.
        lists: Variables made of others.
        choices: Variables that depend on others.
    """

    name: str
    title: str
    about: str
    small: str
    variables: tuple[Variable, ...]
    steps: tuple[Step, ...]
    lists: Mapping[str, str] = field(default_factory=dict)
    choices: tuple[Choice, ...] = ()
    item: str = ITEM

    def value(self, name: str) -> str:
        """The value of a variable."""
        return next(variable.default for variable in self.variables if variable.name == name)

    def has(self, name: str) -> bool:
        """Whether there is such a variable."""
        return any(variable.name == name for variable in self.variables)

    def with_values(self, values: Mapping[str, str]) -> Recipe:
        """The same with values instead of the defaults of those variables that it has."""
        changed = (replace(one, default=values.get(one.name, one.default)) for one in self.variables)
        return replace(self, variables=tuple(changed))

    def calls(self) -> list[Call]:
        """All command lines of the chain, in order, with the values of its variables, as a shell makes them."""
        known = {one.name: one.default for one in self.variables}
        known |= {one.name: _filled(one.set if known[one.when] else one.unset, known) for one in self.choices}
        known |= {name: _filled(text, known) for name, text in self.lists.items()}
        calls = []
        for step in self.steps:
            items = known[step.each].split() if step.each else [""]
            for item in items:
                here = known | {self.item: item}
                several = [known | {self.item: one} for one in known[step.over].split()] if step.over else [here]
                arguments = " ".join(_filled(step.arguments, one) for one in several) if step.over else ""
                words = shlex.split(_filled(step.command, here).replace("{arguments}", arguments))
                needs = {_filled(need, one) for need in step.needs for one in several}
                line = words[: words.index(">")] if ">" in words else words
                calls.append(Call(step, item, tuple(line), _filled(step.makes, here), frozenset(needs)))
        return calls


@dataclass(frozen=True)
class Call:
    """One command line of a chain.

    Attributes:
        step: The step.
        item: Of its list; empty for a step without one.
        words: The command line, without the program's own name and without redirections.
        makes: The file below OUT that exists once it is done.
        needs: Files below OUT that it reads.
    """

    step: Step
    item: str
    words: tuple[str, ...]
    makes: str
    needs: frozenset[str]

    @property
    def name(self) -> str:
        """Its step, with the item."""
        return f"{self.step.name} {self.item}".rstrip()

    @property
    def command(self) -> str:
        """The command, such as `train`."""
        return self.words[0]

    @property
    def options(self) -> dict[str, str]:
        """The options with their values; the last of several, and an empty text where a flag has none."""
        found = {}
        for index, word in enumerate(self.words):
            if word.startswith("-") and len(word) > 1 and not word[1].isdigit():
                after = self.words[index + 1] if index + 1 < len(self.words) else ""
                name, equals, value = word.partition("=")
                found[name] = value if equals else "" if after.startswith("-") else after
        return found


def _filled(text: str, values: Mapping[str, str]) -> str:
    """A text of a shell with the values of its variables; within double quotes a value stays one word."""

    def fill(part: str, *, quoted: bool) -> str:
        def value(found: re.Match[str]) -> str:
            plain = values[found[1]]
            return re.sub(r'([\\"])', r"\\\1", plain) if quoted else plain

        return re.sub(r"\$\{(\w+)\}", value, part)

    parts = re.split(r'("[^"]*")', text)
    return "".join(fill(part, quoted=index % 2 == 1) for index, part in enumerate(parts)).replace("\\\n", " ")


def read_recipe(name: str, values: Sequence[str] = ()) -> Recipe:
    """Read a system's file, with values instead of its defaults.

    Args:
        name: The system.
        values: Texts `VARIABLE=VALUE`.

    Raises:
        UsageError: There is no such system, or no such variable.
    """
    one_of("NAME", name, names())
    content = tomllib.loads((files("cxrtool.recipes") / f"{name}.toml").read_text(encoding="utf-8"))
    variables = {key: Variable(key, *entry) for key, entry in content.pop("variables").items()}
    for text in values:
        key, equals, value = text.partition("=")
        if not equals or key not in variables:
            near = difflib.get_close_matches(key, variables, 1, 0.5)
            meant = f"; did you mean {near[0]}?" if near else ""
            raise UsageError(f"expected VARIABLE=VALUE of {', '.join(variables)}, found '{text}'{meant}")
        if "\n" in value:
            raise UsageError(f"{key}: expected one line, found several")
        variables[key] = replace(variables[key], default=value)
    steps = tuple(Step(**{**step, "needs": tuple(step.get("needs", ()))}) for step in content.pop("steps"))
    choices = tuple(Choice(**choice) for choice in content.pop("choices", ()))
    return Recipe(name=name, variables=tuple(variables.values()), steps=steps, choices=choices, **content)


def waves(steps: Sequence[Step]) -> list[list[Step]]:
    """Groups of trainings that a scheduler may run at once; a new group begins where a step needs the run of another.

    Args:
        steps: The steps of its arrays, in order.
    """
    found: list[list[Step]] = []
    for step in steps:
        if not found or any(other.makes in step.needs for other in found[-1]):
            found.append([])
        found[-1].append(step)
    return found
