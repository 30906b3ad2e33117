"""`--part i/n`: a share of the images, made beside the output by one task of a job array.

A share is put aside under a hidden name, with a lock of its own, so that all tasks may be at work at once, on any
machines that share the folder. The command without `--part` takes over what they made, and makes what is missing.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cxrtool.data.files import locked
from cxrtool.errors import OutputError, UsageError, count_of
from cxrtool.flow.settings import Settings

Value = TypeVar("Value")

_ASIDE = re.compile(r"\.([1-9][0-9]*)of([1-9][0-9]*)\.partial")


@dataclass(frozen=True)
class Share:
    """One of `count` shares; `number` is from 1 to `count`."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def of(cls, settings: Settings) -> Share | None:
        """That of `--part`; None where it is not given.

        Raises:
            UsageError: It is none, or `--force` is given.
        """
        if settings.part is None:
            return None
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", settings.part.strip(), re.ASCII)
        number, count = map(int, found.groups()) if found else (0, 0)
        if not 1 <= number <= count:
            raise UsageError(f"--part: expected I/N with I from 1 to N, such as 3/10, found '{settings.part}'")
        if settings.force:
            raise UsageError(
                "--part and --force: what one part makes again, another one would remove; "
                "remove the output to make it again in parts"
            )
        return cls(number, count)

    def select(self, items: Mapping[str, Value]) -> dict[str, Value]:
        """The items of this share: every `count`-th in the order of the keys, so that all shares are of one size.

        >>> Share(2, 3).select({"e": 1, "d": 2, "c": 3, "b": 4, "a": 5})
        {'e': 1, 'b': 4}
        """
        wanted = set(sorted(items)[self.number - 1 :: self.count])
        return {key: value for key, value in items.items() if key in wanted}

    def summary(self, done: int, failed: int, out: Path) -> str:
        """What was made, for a message."""
        unread = f", {failed} cannot be read" if failed else ""
        return (
            f"part {self}: {count_of(done, 'image')}{unread}; after all parts, the same command without --part "
            f"writes {out}"
        )

    def lock(self, out: Path) -> Path:
        """The lock of this share of an output."""
        return out.parent / f".{out.name}.{self.number}of{self.count}.lock"

    def aside(self, out: Path, mark: str = "") -> Path:
        """Where it is made, beside the output."""
        return out.parent / f".{out.name}{mark}.{self.number}of{self.count}.partial"


def share_of(aside: Path) -> Share | None:
    """The share that a file or folder holds by its name; None where it holds none.

    >>> share_of(Path(".out.0123456789ab.3of10.partial")), share_of(Path(".out.0123456789ab.partial"))
    (Share(number=3, count=10), None)
    """
    found = _ASIDE.search(aside.name)
    return Share(*map(int, found.groups())) if found and found.end() == len(aside.name) else None


def shares_of_file(out: Path) -> list[Path]:
    """The shares beside an output that is a file."""
    name = re.compile(re.escape(f".{out.name}") + _ASIDE.pattern)
    return sorted(Path(entry.path) for entry in os.scandir(out.parent) if name.fullmatch(entry.name))


@contextlib.contextmanager
def held(out: Path, paths: Iterable[Path]) -> Iterator[None]:
    """Hold the locks of shares beside an output, so that no task is at work on one; other paths have none.

    Raises:
        OutputError: A task is.
    """
    with contextlib.ExitStack() as locks:
        for share in {share for path in paths if (share := share_of(path))}:
            try:
                locks.enter_context(locked(share.lock(out), wait=False))
            except OutputError as error:
                raise OutputError(
                    f"part {share} of {out} is still being made", "wait for it, or stop it; then run this command again"
                ) from error
        yield
