"""What a zip file inflates to is known before anything is inflated."""

from __future__ import annotations

import time
import zipfile

import pytest

from cxrtool.data.archives import check_archive
from cxrtool.errors import InputError


def test_a_zip_file_is_bounded_by_what_its_members_inflate_to(tmp_path):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a", "w") as member:
        for _ in range(200):
            member.write(bytes(1 << 20))
    assert path.stat().st_size < 1 << 20
    began = time.process_time()
    with pytest.raises(InputError, match="expected a workbook of at most 1,048,576 bytes when it is inflated"):
        check_archive(path, 1 << 20, "a workbook")
    assert time.process_time() - began < 0.1
    assert [member.filename for member in check_archive(path, 1 << 28, "a workbook")] == ["a"]
