"""Check this machine and installation.

Checks versions, whether torch and torchvision are compatible, processor, memory, GPU, disk space and the decoders of
compressed DICOM. Each problem has a line of advice. Exits with code 1 if a check fails.

Example: cxrtool doctor
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import ClassVar

from cxrtool import processors
from cxrtool.data.cache import default_cache
from cxrtool.errors import CxrtoolError, count_of
from cxrtool.flow.settings import Settings
from cxrtool.options import Options

OK, WARN, FAIL = "ok", "warn", "fail"

PACKAGES = (
    "numpy",
    "scipy",
    "scikit-learn",
    "scikit-image",
    "opencv-python-headless",
    "matplotlib",
    "pydicom",
    "torch",
    "torchvision",
    "timm",
    "safetensors",
    "typer",
    "rich",
)

CODECS = {
    "RLE": ("1.2.840.10008.1.2.5", "pip install pylibjpeg-rle"),
    "JPEG": ("1.2.840.10008.1.2.4.50", "pip install 'pillow'"),
    "JPEG 2000": ("1.2.840.10008.1.2.4.90", "pip install pylibjpeg-openjpeg"),
    "JPEG-LS": ("1.2.840.10008.1.2.4.80", "pip install pyjpegls"),
    "JPEG Lossless": ("1.2.840.10008.1.2.4.70", "pip install pylibjpeg-libjpeg (GPL)"),
}
"""Compressed transfer syntaxes of DICOM, and the package with their decoder."""

TORCH_PROBE = """
import json, pathlib, torch
from importlib import metadata, util
found = {"torch": torch.__version__, "torchvision": metadata.version("torchvision"), "gpus": []}
for index in range(torch.cuda.device_count()):
    entry = torch.cuda.get_device_properties(index)
    found["gpus"].append([entry.name, entry.total_memory, torch.cuda.get_device_capability(index)])
libraries = list(pathlib.Path(util.find_spec("torchvision").origin).parent.glob("_C*.so"))
if libraries:
    torch.ops.load_library(str(libraries[0]))
else:
    import torchvision
torch.ops.torchvision.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
print(json.dumps(found))
"""
"""Loads only the compiled part of torchvision, which fails if the two are incompatible; it saves 5 s of imports."""

PROBE_SECONDS = 120
LITTLE_SPACE = 5 << 30
LITTLE_MEMORY = 4 << 30


@dataclass(frozen=True)
class Finding:
    """One line of the table.

    Attributes:
        what: What was checked.
        state: `ok`, `warn` or `fail`.
        found: The version, size or name that was found.
        advice: What to do; empty where nothing needs to be done.
    """

    what: str
    state: str
    found: str
    advice: str = ""


@dataclass(frozen=True)
class DoctorOptions(Options):
    """The options of `doctor`."""

    SHARED: ClassVar[tuple[str, ...]] = ("cache", "quiet", "style")


def run(options: DoctorOptions, settings: Settings) -> int:
    """Check, print the findings, and return 1 if a check fails."""
    findings, output = doctor(options, settings), settings.output
    if settings.style == "table":
        width = max(len(finding.what) for finding in findings)
        for finding in findings:
            output.write(f"{finding.state:4}  {finding.what.ljust(width)}  {finding.found}\n")
            if finding.advice:
                output.write(f"{'':{width + 8}}{finding.advice}\n")
    else:
        output.table(["what", "state", "found", "advice"], [[f.what, f.state, f.found, f.advice] for f in findings])
    failed = sum(finding.state == FAIL for finding in findings)
    warned = sum(finding.state == WARN for finding in findings)
    settings.report.say(f"{failed} fail, {warned} warn" if failed or warned else "no problems found")
    return 1 if failed else 0


def doctor(options: DoctorOptions, settings: Settings) -> list[Finding]:
    """Run all checks; a check that raises an error becomes a finding."""
    findings: list[Finding] = []
    for check in CHECKS:
        try:
            findings += check(settings)
        except Exception as error:
            # The other checks are still useful.
            found = f"the check itself failed: {type(error).__name__}: {error}".splitlines()[0]
            findings.append(Finding(check.__name__.strip("_"), WARN, found[:200]))
    return findings


def _python(settings: Settings) -> Iterator[Finding]:
    version = platform.python_version()
    good = sys.version_info >= (3, 11)
    yield Finding("python", OK if good else FAIL, f"{version}, {sys.prefix}", "" if good else "needs 3.11 or later")


def _packages(settings: Settings) -> Iterator[Finding]:
    wanted = _lower_bounds()
    for name in PACKAGES:
        least = wanted.get(name, "")
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Finding(name, FAIL, "not installed", f"pip install '{name}{'>=' + least if least else ''}'")
            continue
        if least and _numbers(version) < _numbers(least):
            yield Finding(name, FAIL, f"{version}, older than {least}", f"pip install -U '{name}>={least}'")
        else:
            yield Finding(name, OK, version)


def _opencv(settings: Settings) -> Iterator[Finding]:
    builds = sorted(
        name
        for entry in metadata.distributions()
        if (name := (entry.metadata["Name"] or "").lower()) and name.startswith("opencv-") and "python" in name
    )
    if len(builds) > 1:
        others = " ".join(name for name in builds if name != "opencv-python-headless")
        advice = f"pip uninstall -y {others} && pip install --force-reinstall --no-deps opencv-python-headless"
        yield Finding("cv2", WARN, f"{' and '.join(builds)} overwrite each other's files", advice)
    probe = _run("import cv2; print(cv2.__version__)")
    if probe.returncode:
        advice = "pip install --force-reinstall opencv-python-headless"
        yield Finding("cv2", FAIL, f"import fails: {_last_line(probe.stderr)}", advice)


def _torch(settings: Settings) -> Iterator[Finding]:
    import json

    probe = _run(TORCH_PROBE)
    if probe.returncode:
        yield Finding(
            "torch pair",
            FAIL,
            f"torch and torchvision do not work together: {_last_line(probe.stderr)}",
            "install both in one command from the same index: pip install --force-reinstall torch torchvision",
        )
        return
    found = json.loads(probe.stdout.splitlines()[-1])
    yield Finding("torch pair", OK, f"torch {found['torch']} and torchvision {found['torchvision']} work together")
    for name, memory, (major, minor) in found["gpus"]:
        bf16 = "bf16" if major >= 8 else "no bf16"
        yield Finding("gpu", OK, f"{name}, {_gigabytes(memory)}, compute capability {major}.{minor}, {bf16}")
    if not found["gpus"]:
        has_card = Path("/dev/nvidiactl").exists()
        advice = "update the driver, or install a torch built for it" if has_card else ""
        yield Finding("gpu", WARN if has_card else OK, "none that torch can use; the processor is used instead", advice)


def _processor(settings: Settings) -> Iterator[Finding]:
    flags: set[str] = set()
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in ("flags", "Features"):
                flags = set(value.split())
            if name.strip() == "model name":
                model = value.strip()
    fast = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16") if flag in flags]
    yield Finding("processor", OK, f"{model}: {', '.join(fast) or 'no vector extensions known'}")
    bf16 = bool({"avx512_bf16", "amx_bf16", "bf16"} & flags)
    yield Finding("bf16", OK, "in hardware" if bf16 else "not in hardware: --precision auto uses fp32 here")
    usable, present = processors.usable(), os.cpu_count() or 1
    chosen = [f"{name}={os.environ[name]}" for name in ("OMP_NUM_THREADS", *processors.CHOSEN_BY) if name in os.environ]
    yield Finding("threads", OK, ", ".join([f"{usable} of {count_of(present, 'processor')}", *chosen]))
    busy = processors.crowded(usable)
    advice = "wait, or give fewer --threads and --workers: what waits for a processor gains nothing from more of them"
    yield Finding("load", WARN if busy else OK, busy or "a processor is free for each thread", advice if busy else "")


def _memory(settings: Settings) -> Iterator[Finding]:
    whole = processors.memory()
    enough = whole >= LITTLE_MEMORY
    yield Finding(
        "memory", OK if enough else WARN, _gigabytes(whole), "" if enough else "use --workers 1 and small batches"
    )


def _folders(settings: Settings) -> Iterator[Finding]:
    cache = settings.cache or default_cache()
    for what, folder, option in (("cache", cache, "--cache"), ("working directory", Path.cwd(), "-o")):
        existing = next((path for path in (folder, *folder.absolute().parents) if path.exists()), Path("/"))
        try:
            with tempfile.TemporaryFile(dir=existing) as file:
                file.write(b"x")
        except OSError as error:
            state = FAIL if what == "cache" else WARN
            yield Finding(what, state, f"{folder}: {error.strerror}", f"choose another folder with {option}")
            continue
        free = shutil.disk_usage(existing).free
        little = free < LITTLE_SPACE
        yield Finding(
            what,
            WARN if little else OK,
            f"{folder}, {_gigabytes(free)} free",
            f"free some space, or choose another folder with {option}" if little else "",
        )


def _dicom(settings: Settings) -> Iterator[Finding]:
    from pydicom.pixels.decoders.base import get_decoder

    for name, (syntax, remedy) in CODECS.items():
        try:
            readable = get_decoder(syntax).is_available
        except NotImplementedError:
            readable = False
        if readable:
            yield Finding(f"DICOM {name}", OK, "can be read")
        else:
            yield Finding(f"DICOM {name}", WARN, "cannot be read", f"if you have such files: {remedy}")


CHECKS: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
    _python,
    _packages,
    _opencv,
    _torch,
    _processor,
    _memory,
    _folders,
    _dicom,
)
"""In the order of the table."""


def _lower_bounds() -> dict[str, str]:
    bounds = {}
    for line in metadata.requires("cxrtool") or []:
        name = re.match(r"[\w.-]+", line)
        least = re.search(r">=\s*([\w.]+)", line.split(";")[0])
        if name and least:
            bounds[name[0].lower()] = least[1]
    return bounds


def _numbers(version: str) -> tuple[int, ...]:
    digits = []
    for part in version.split("+")[0].split("."):
        number = "".join(mark for mark in part if mark.isdigit())
        if not part[:1].isdigit():
            break
        digits.append(int(number))
    return tuple(digits)


def _run(code: str) -> subprocess.CompletedProcess[str]:
    # In a separate process, because incompatible versions can kill the interpreter.
    try:
        return subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=PROBE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess([], 1, "", f"no answer in {PROBE_SECONDS} s")
    except OSError as error:
        raise CxrtoolError(f"cannot start python: {error}") from error


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1][:160] if lines else "the process was killed"


def _gigabytes(count: float) -> str:
    return f"{count / (1 << 30):.1f} GiB"
