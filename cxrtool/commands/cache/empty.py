"""Remove decoded images from the cache, and print what was freed.

Only files that cxrtool made there are removed, and no run needs them: they are decoded again when they are needed.
Images that a running training still reads stay on the disk until it ends.

Example: cxrtool cache empty --older-than 30 --dry-run
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import ClassVar

from cxrtool.commands.cache.words import DAY, age, megabytes
from cxrtool.data.cache import default_cache, entries_of, remove
from cxrtool.errors import count_of
from cxrtool.flow.settings import Settings
from cxrtool.options import Options, option


@dataclass(frozen=True)
class EmptyOptions(Options):
    """The options of `cache empty`."""

    SHARED: ClassVar[tuple[str, ...]] = ("cache", "dry_run", "quiet")

    older_than: float = option("Only what was not used for this number of days.", 0.0, minimum=0, metavar="DAYS")


def run(options: EmptyOptions, settings: Settings) -> None:
    """Remove the files.

    Raises:
        InputError: The folder is no cache.
        OutputError: A file cannot be removed.
    """
    folder, report = settings.cache or default_cache(), settings.report
    latest = time.time() - options.older_than * DAY
    old = [entry for entry in entries_of(folder) if entry.used <= latest]
    freed, number = 0, 0
    for entry in old:
        name = f"{entry.path}: {megabytes(entry.size)}, last used {age(entry.used)} ago"
        if settings.dry_run:
            report.say(f"would remove {name}")
        elif not remove(entry):
            report.warn(f"{entry.path}: another cxrtool is writing it; left")
            continue
        else:
            report.say(f"removed {name}")
        freed, number = freed + entry.size, number + 1
    verb = "would free" if settings.dry_run else "freed"
    report.say(f"{folder}: {verb} {megabytes(freed)}, {count_of(number, 'set')} of decoded images")
