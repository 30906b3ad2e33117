"""Zip files of others (workbooks, .npz, checkpoints): what they inflate to is bounded before anything is inflated."""

from __future__ import annotations

import zipfile
from pathlib import Path

from cxrtool.errors import InputError


def check_archive(path: Path, largest: int, what: str) -> list[zipfile.ZipInfo]:
    """The members of a zip file, when all of them together inflate to at most `largest` bytes.

    A member is never inflated beyond the size that is listed for it, so a list that is wrong is no way around this.

    Raises:
        InputError: They are larger. `what` names the file's kind in the message.
        zipfile.BadZipFile: It is damaged, or no zip file.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    size = sum(member.file_size for member in members)
    if size > largest:
        raise InputError(f"{path}: expected {what} of at most {largest:,} bytes when it is inflated, found {size:,}")
    return members
