"""The images that a network from elsewhere was trained on, kept beside it so that leakage can be found."""

from __future__ import annotations

from pathlib import Path

from cxrtool.data.tables.manifest import Manifest, Row, write_table
from cxrtool.errors import CxrtoolError
from cxrtool.flow.fold_training import FITTED_COLUMNS
from cxrtool.flow.folder import Build
from cxrtool.flow.seen import FITTED
from cxrtool.flow.settings import Settings


def list_images(build: Build, manifest: Manifest, settings: Settings) -> None:
    """Write `fitted_on.csv`; pixels without a digest in the manifest are read for one."""
    from functools import partial

    from cxrtool.flow.chain import decode
    from cxrtool.flow.parallel import map_items

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
                # Its patient counts all the same.
                build.reject(row["path"], result.message)
            else:
                known[row["image_id"]] = result[1]
            advance(1)
    rows: list[Row] = [
        {
            "image_id": row["image_id"],
            "patient_id": row.get("patient_id", ""),
            "sha256": row.get("sha256") or known.get(row["image_id"], ""),
            "repeat": "",
            "fold": "",
            "subset": "train",
        }
        for row in manifest.rows
    ]
    write_table(build.path / FITTED, FITTED_COLUMNS, rows)
