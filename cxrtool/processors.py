"""The processors and memory that this process may use, who else is busy, how its threads wait, its like of torchrun.

joblib counts processors too, but its import takes longer than `--help` may, and it looks for a limit only at the root
of the control groups, where a job of SLURM has none.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, MutableMapping
from pathlib import Path, PurePosixPath

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")

SPINS = "GOMP_SPINCOUNT"
SPINNING = {SPINS: "1000", "KMP_BLOCKTIME": "1"}
"""How long a thread that waits for the others spins before it sleeps: a count for libgomp, milliseconds for libomp.

Left alone, libgomp spins 300,000 times, which is about 20 ms, and libomp for 200 ms: on a machine with other work a
thread then spins on the processor that the thread it waits for could use.
"""
CHOSEN_BY = (*SPINNING, "OMP_WAIT_POLICY")
"""Variables by which a user chooses; one of them is enough for all to be left as they are."""


def usable() -> int:
    """The number of processors that affinity and the quota of the control group allow; at least 1."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:
        allowed = os.cpu_count() or 1
    return max(1, min([allowed, *(math.ceil(share) for share in _quotas())]))


def ranks() -> int:
    """The number of processes in which `torchrun`, or what sets its variables, has started this program; else 1."""
    found = os.environ.get("WORLD_SIZE", "")
    return int(found) if "RANK" in os.environ and found.isdecimal() else 1


def rank() -> int:
    """Which of them this is, from 0; the first one speaks and writes for all."""
    return int(os.environ["RANK"]) if ranks() > 1 else 0


def spin_briefly(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let waiting threads sleep soon, unless the user chose otherwise; before a numerical library is loaded.

    The libraries read these variables when they are loaded. Results do not depend on them.
    """
    if not any(name in environment for name in CHOSEN_BY):
        environment.update(SPINNING)


def others() -> int:
    """The number of processes of the whole machine, but for this one, that want a processor.

    It is the smaller one of now and of the last minute, so that neither an instant nor what has ended counts; 0 where
    the system does not tell.
    """
    try:
        average, _, _, running, *_ = (PROC / "loadavg").read_text(encoding="ascii").split()
        return max(0, min(round(float(average)), int(running.partition("/")[0]) - 1))
    except (OSError, ValueError):
        return 0


def crowded(threads: int) -> str:
    """A sentence where the machine has fewer processors than its other processes and these threads want; else empty."""
    busy, present = others(), os.cpu_count() or 1
    if busy + threads <= present:
        return ""
    wanting = "1 other process wants a processor" if busy == 1 else f"{busy} other processes want a processor"
    return f"the machine is busy: {wanting}, beside {threads} threads here, and it has {present}; this takes longer"


def memory() -> int:
    """Bytes of memory that this process may use: those of the machine, or the least that its control groups allow."""
    allowed = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for folder, first_version in _groups("memory"):
        limit, *_ = _MEMORY_FILES[first_version]
        with contextlib.suppress(OSError, ValueError):
            allowed.append(int((folder / limit).read_text(encoding="ascii")))
    return min(allowed)


def memory_left() -> float:
    """Bytes of memory that nobody uses, but for what the system keeps of files, also within the control groups.

    Where the system does not tell, infinitely many.
    """
    known = [_counts(PROC / "meminfo").get("MemAvailable:", math.inf / 1024) * 1024]
    for folder, first_version in _groups("memory"):
        limit, used, files = _MEMORY_FILES[first_version]
        with contextlib.suppress(OSError, ValueError):
            most, now = (int((folder / name).read_text(encoding="ascii")) for name in (limit, used))
            known.append(most - now + _counts(folder / "memory.stat").get(files, 0))
    return max(0.0, min(known))


def memory_held() -> float:
    """Bytes of memory that this process has for itself; 0 where the system does not tell."""
    try:
        _, resident, shared, *_ = map(int, (PROC / "self" / "statm").read_text(encoding="ascii").split())
        return float((resident - shared) * os.sysconf("SC_PAGE_SIZE"))
    except (OSError, ValueError):
        return 0.0


_MEMORY_FILES = {
    True: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache"),
    False: ("memory.max", "memory.current", "file"),
}
"""Of both versions of control groups: the limit, what is used, and the name of files' part of it in `memory.stat`."""


def _counts(path: Path) -> dict[str, float]:
    """The numbers of a file whose lines are a name and a number; none where it cannot be read."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
        return {name: float(value) for name, value, *_ in map(str.split, lines)}
    except (OSError, ValueError):
        return {}


def _quotas() -> Iterator[float]:
    """Processors that the control groups of this process allow, of both versions; a group is limited by those above."""
    for folder, first_version in _groups("cpu"):
        yield from _quota(folder, first_version=first_version)


def _groups(controller: str) -> Iterator[tuple[Path, bool]]:
    """The folder of each control group of this process and above it that may limit this; whether of version 1."""
    try:
        lines = (PROC / "self" / "cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        # In a container the name may be that of the machine, whose groups it does not see: then its root is its own.
        group = PurePosixPath(name.lstrip("/"))
        for folder in (group, *group.parents):
            for mount in (controllers, controller) if controllers else ("", "unified"):
                yield CGROUPS / mount / folder, bool(controllers)


def _quota(folder: Path, *, first_version: bool) -> Iterator[float]:
    names = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if first_version else ("cpu.max",)
    try:
        quota, period = map(float, " ".join((folder / name).read_text(encoding="ascii") for name in names).split())
    except (OSError, ValueError):
        # No such group, or no limit, which version 2 writes as `max`.
        return
    if quota > 0 and period > 0:
        yield quota / period
