"""How a division was made: the command line of `cxrtool split` without paths, in the column `made_by` of `splits.csv`.

The commands of a pipe are separated by `|`: `--within` thins out a division that another command has made.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from cxrtool.options import flag_of

COMMAND, PIPE = "split", "|"

BETWEEN = "; "
"""Between the values of an option that was given several times."""


def command_line(values: Mapping[str, object]) -> str:
    """The command line with these options; one that is None is not in it, and one of several values is repeated.

    >>> command_line({"folds": 5, "keep": None, "validation": 0.0, "leave_out": "first source"})
    "split --folds 5 --validation 0 --leave-out 'first source'"
    >>> command_line({"exclude": ("severity=mild", "view=AP")})
    'split --exclude severity=mild --exclude view=AP'
    """
    several = {name: value if isinstance(value, tuple) else (value,) for name, value in values.items()}
    given = [(flag_of(name), str(one)) for name, value in several.items() for one in value if one is not None]
    return shlex.join([COMMAND, *(word for flag, text in given for word in (flag, text.removesuffix(".0")))])


def parse(line: str) -> list[dict[str, str]]:
    """The options of each command of a line, by name.

    Raises:
        ValueError: It is no such line.

    >>> parse("split --folds 5 --seed 0 | split --within - --equal label")
    [{'folds': '5', 'seed': '0'}, {'within': '-', 'equal': 'label'}]
    """
    commands: list[list[str]] = [[]]
    for word in shlex.split(line):
        if word == PIPE:
            commands.append([])
        else:
            commands[-1].append(word)
    return [_options(words) for words in commands]


def _options(words: list[str]) -> dict[str, str]:
    flags, values = words[1::2], words[2::2]
    if words[:1] != [COMMAND] or len(flags) != len(values) or not all(flag.startswith("--") for flag in flags):
        raise ValueError(f"expected options of {COMMAND}, found {shlex.join(words)}")
    found: dict[str, str] = {}
    for flag, value in zip(flags, values, strict=True):
        name = flag.removeprefix("--").replace("-", "_")
        found[name] = f"{found[name]}{BETWEEN}{value}" if name in found else value
    return found


def as_typed(line: str) -> str:
    """The line with the name of the program before each command.

    >>> as_typed("split --folds 5 | split --within - --equal label")
    'cxrtool split --folds 5 | cxrtool split --within - --equal label'
    """
    return f"cxrtool {line}".replace(f" {PIPE} {COMMAND} ", f" {PIPE} cxrtool {COMMAND} ")
