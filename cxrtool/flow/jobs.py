"""Jobs of one call that do not need one another, such as its folds: on a cluster, or side by side on this machine."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cxrtool import processors
from cxrtool.data.files import is_stream
from cxrtool.errors import InputError, UsageError
from cxrtool.flow.cluster import Cluster
from cxrtool.flow.folder import StepFolder
from cxrtool.flow.settings import Reporter, Settings
from cxrtool.flow.side_by_side import Job, Start, side_by_side
from cxrtool.flow.signals import StopRequest


@dataclass(frozen=True)
class FoldJob:
    """One fold of a run."""

    fold: str

    def __str__(self) -> str:
        return f"fold {self.fold}"


def apart(settings: Settings, count: int) -> bool:
    """Whether jobs are done in other processes, `count` at a time on this machine."""
    return settings.cluster is not None or count > 1


def check_processes(settings: Settings, count: int, tables: Mapping[str, Path]) -> None:
    """Raise a `UsageError` where processes cannot share what they have to, such as `tables` that each reads."""
    ranks = processors.ranks()
    if settings.cluster and max(ranks, count) > 1:
        raise UsageError(
            "--cluster: expected neither torchrun nor --jobs, found one of them",
            "each worker of a cluster does one training at a time",
        )
    if ranks > 1 and count > 1:
        raise UsageError(
            f"--jobs: expected 1 where torchrun has started {ranks} processes, found {count}",
            "divide each training by torchrun, or train several side by side by --jobs",
        )
    for name, path in tables.items():
        if (ranks > 1 or apart(settings, count)) and is_stream(path):
            raise UsageError(
                f"{name}: expected a file, which every process of the training can read, found a stream",
                "write it to a file first",
            )


def check_same(container: StepFolder, digest: str, table: str) -> None:
    """Raise an `InputError`, which names the table, unless another process has opened the same as this one."""
    if container.digest != digest:
        raise InputError(
            f"{table}: expected the tables, images and versions that the training began with, found others in one of "
            "its processes",
            "run the same command again when they no longer change",
        )


def turn(settings: Settings, count: int, request: StopRequest) -> contextlib.AbstractContextManager[None]:
    """The turn of a training on its device; of `count` side by side, who started them has it."""
    if count > 1:
        return contextlib.nullcontext()
    from cxrtool.training.device import choose_device, take_turns

    device, threads = choose_device(settings.device), settings.threads
    return take_turns(device, threads, settings.report.say, request.raise_if_stopped)


def warning_of(name: str, count: int, report: Reporter) -> Callable[[str], None]:
    """What writes the warnings of a job; of `count` side by side it would not be clear whose they are."""
    return report.warn if count == 1 else lambda text: report.warn(f"{name}: {text}")


def do_apart(
    start: Start[Job],
    rounds: Sequence[Sequence[Job]],
    count: int,
    settings: Settings,
    request: StopRequest,
    decode: Callable[[StopRequest], object],
) -> None:
    """Do jobs in other processes: on the cluster of the settings, or `count` at a time on this machine.

    Args:
        start: As `side_by_side` takes it.
        rounds: The jobs of one do not need one another, but those of the one before.
        count: Jobs at a time on this machine.
        settings: Of the call.
        request: Looked at meanwhile.
        decode: Decodes the images here, once for all jobs on this machine.

    Raises:
        CxrtoolError: Of a job, or its process was killed; the message begins with the job.
        StoppedError: A signal arrived.
    """
    if not any(rounds):
        return
    if cluster := Cluster.of(settings):
        for jobs in rounds:
            cluster.do(start, jobs, settings.report, request)
        return
    decode(request)
    with turn(replace(settings, threads=settings.threads * count), 1, request):
        for jobs in rounds:
            side_by_side(start, jobs, count, settings.report, request)
