"""`folder`: any tree of images, where the class is the name of an image's folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from cxrtool.data.datasets.record import Record, Request
from cxrtool.data.datasets.registry import adapter

_OTHER_SUFFIXES = """
txt md rst csv tsv json jsonl xml yaml yml toml ini cfg html htm css js
pdf doc docx xls xlsx ods odt ppt pptx rtf tex bib
zip gz tgz tar bz2 xz 7z rar
py ipynb r m sh bat log sql db sqlite npy npz h5 hdf5 mat pkl pt pth onnx safetensors
md5 sha256 lock exe dll so
"""
NOT_IMAGES = {f".{suffix}" for suffix in _OTHER_SUFFIXES.split()}
"""Suffixes of files that are skipped and counted; all other files are tried, and rejected if they cannot be read."""

_NOT_IMAGES_BY_NAME = {"dicomdir", "thumbs.db", "desktop.ini", "readme", "license", "makefile", "checksums"}


def may_be_image(name: str) -> bool:
    """Whether a file with this name is tried as an image.

    >>> may_be_image("a.png"), may_be_image("1.2.840.113"), may_be_image("notes.txt"), may_be_image(".DS_Store")
    (True, True, False, False)
    """
    suffix = Path(name).suffix.lower()
    return not name.startswith(".") and suffix not in NOT_IMAGES and name.lower() not in _NOT_IMAGES_BY_NAME


@adapter("folder")
def read(root: Path, request: Request) -> Iterator[Record]:
    """Yield every file below `root` that may be an image, sorted by path; images directly in `root` have no label.

    `root` may be a single file. Hidden files and folders are ignored. Links to folders are followed, but no folder is
    entered twice; a folder that cannot be listed is yielded itself, so that it is rejected with a reason.
    """
    if not root.is_dir():
        yield Record(root, {}, root.name)
        return
    seen: set[tuple[int, int]] = set()
    refused: list[OSError] = []
    for here, folders, files in os.walk(root, followlinks=True, onerror=refused.append):
        status = os.stat(here)  # noqa: PTH116
        if (status.st_dev, status.st_ino) in seen or Path(here).resolve() in request.exclude:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        label = "" if here == str(root) else Path(here).name
        for name in sorted(files):
            path = Path(here, name)
            if name.startswith("."):
                continue
            if not may_be_image(name):
                request.skipped.append(path)
                continue
            yield Record(path, {"label": label}, path.relative_to(root).as_posix())
    for error in refused:
        path = Path(error.filename)
        yield Record(path, {}, path.relative_to(root).as_posix())
