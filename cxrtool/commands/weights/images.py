"""The training images of an imported network, listed beside it to detect leakage."""

from __future__ import annotations

from pathlib import Path

from cxrtool.data.file_names import FITTED_ON
from cxrtool.data.splitting.grouping import PATIENT, hashed
from cxrtool.data.tables.manifest import Manifest, Row, write_table
from cxrtool.errors import CxrtoolError
from cxrtool.flow.fold_training import FITTED_COLUMNS
from cxrtool.flow.folder import Build
from cxrtool.flow.settings import Settings


def list_images(build: Build, manifest: Manifest, settings: Settings) -> None:
    """Write `fitted_on.csv`; images without a digest in the manifest are read to compute it."""
    from functools import partial

    from cxrtool.flow.parallel import map_items
    from cxrtool.flow.replaying import decode

    without = [row for row in manifest.rows if not row.get("sha256")]
    work = partial(decode, chain=[], size=16, fit="squash")
    known: dict[str, str] = {}
    with settings.report.progress("reading", len(without)) as advance:
        results = map_items(
            work,
            [Path(row["path"]) for row in without],
            workers=settings.workers,
            preload=("cxrtool.data.reading.images",),
        )
        for row, (_, result) in zip(without, results, strict=True):
            if isinstance(result, CxrtoolError):
                # It is listed nevertheless, because its patient counts.
                build.reject(row["path"], result.message)
            else:
                known[row["image_id"]] = result[1]
            advance(1)
    rows: list[Row] = [
        {
            "image_id": row["image_id"],
            "patient_id": hashed(row.get(PATIENT, "")),
            "sha256": row.get("sha256") or known.get(row["image_id"], ""),
            "repeat": "",
            "fold": "",
            "subset": "train",
        }
        for row in manifest.rows
    ]
    write_table(build.path / FITTED_ON, FITTED_COLUMNS, rows)
