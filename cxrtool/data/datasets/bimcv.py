"""`bimcv`: BIMCV-COVID19+ and BIMCV-COVID19- (de la Iglesia Vayá et al. 2020, arXiv:2006.01174), Valencia, Spain.

Layout (MIDS), after all archives were unpacked into one folder or side by side:
`sub-S03047/ses-E07985/mod-rx/sub-S03047_ses-E07985_run-1_bp-chest_vp-ap_cr.png` and a `.json` of the same name, the
DICOM header in the format of PS3.18 F.2; `participants.tsv` (`participant, modality_dicom, body_parts, age, gender`);
`derivatives/labels/*.tsv` (`PatientID, ReportID, Report, Labels, …`), where `ReportID` is the session.

**The PNGs contain raw stored values**: some are inverted (MONOCHROME1), most use a small dark part of the 16 bits.
`prepare` applies the window and photometric interpretation of the header, by the rules for DICOM. The conversion to PNG
has already applied the rescale, so it is not applied again. An image without its `.json` is read as it is, with a
warning.

- `label`: `COVID-19`, `COVID-19 uncertain`, `pneumonia`, `normal`, `other findings`, or empty, from the session's
  report by the rule of `cells.class_of`; `labels` is the set's own list. All patients of BIMCV-COVID19+ had a positive
  test at some time: `cohort` is `positive` or `negative`, by the names of the table or the folders.
- `patient_id`: `sub-…`; `session`: `ses-…`. `sex`: `gender`. `age`: from `participants.tsv` if it is a single number,
  else from the header. `view`: `vp-`; without it, from the header.
- Excluded: body parts other than the chest, and lateral views unless `--view` includes them. CT is not listed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from cxrtool.data.datasets import folder
from cxrtool.data.datasets.cells import class_of, items_of, not_frontal, view_of
from cxrtool.data.datasets.layout import columns_of, misfit
from cxrtool.data.datasets.record import Record, Request
from cxrtool.data.datasets.registry import adapter
from cxrtool.data.tables.manifest import Row, read_table
from cxrtool.data.tables.people import sex_of, years_of

RADIOGRAPHS = "mod-rx"
NO_HEADER = "no .json file beside it: its window is unknown, and the image may be inverted"
_COHORTS = (("posi", "positive"), ("neg", "negative"))


@adapter("bimcv", mark=lambda root: (root / "participants.tsv").is_file() or any(root.glob("sub-*")))
def read(source: Path, request: Request) -> Iterator[Record]:
    """Yield every PNG in the folders `mod-rx`.

    Raises:
        InputError: There is no such image.
    """
    people: dict[str, Row] = {}
    for path in _tables(source, "participants.tsv"):
        table = read_table(path)
        (name,) = columns_of(table, "participant|participant_id|subject")
        people |= {row[name].strip(): row for row in table.rows}
    sessions = _sessions(source)
    if not sessions:
        request.remarks.append("no derivatives/labels/*.tsv was found: the images are unlabelled")
    empty = True
    for record in folder.read(source, request):
        if record.path.parent.name != RADIOGRAPHS or record.path.suffix.lower() != ".png":
            request.skipped.append(record.path)
            continue
        empty = False
        yield _record(record, people, sessions, request)
    if empty:
        raise misfit(source, "bimcv", f"sub-*/ses-*/{RADIOGRAPHS}/*.png")


def _record(record: Record, people: dict[str, Row], sessions: dict[str, Row], request: Request) -> Record:
    parts = dict(part.split("-", 1) for part in record.path.stem.split("_") if "-" in part)
    patient, session = f"sub-{parts.get('sub', '')}", f"ses-{parts.get('ses', '')}"
    person, report = people.get(patient, {}), sessions.get(session, {})
    view, ages = view_of(parts.get("vp", "")), items_of(person.get("age", ""))
    columns = {
        "label": class_of(items_of(report.get("labels", ""))),
        "labels": report.get("labels", ""),
        "patient_id": patient,
        "session": session,
        "view": view,
        "sex": sex_of(person.get("gender", "")),
        "age": years_of(ages[0]) if len(ages) == 1 else "",
        "source": "bimcv",
        "cohort": report.get("cohort") or _cohort(record.relative),
    }
    header = record.path.with_suffix(".json")
    if not header.is_file():
        columns["warning"] = NO_HEADER
    body = parts.get("bp", "chest").lower()
    unwanted = not_frontal(view, request) if body == "chest" else f"body part {body}, not a chest"
    return replace(record, columns=columns, unwanted=unwanted, header=header if header.is_file() else None)


def _sessions(source: Path) -> dict[str, Row]:
    """The list of findings and the cohort of every session."""
    sessions: dict[str, Row] = {}
    for path in _tables(source, "derivatives/labels/*.tsv"):
        table = read_table(path)
        if not {"ReportID", "Labels"} <= set(table.columns):
            continue
        cohort = _cohort(path.name)
        for row in table.rows:
            sessions[row["ReportID"].strip()] = {"labels": row["Labels"].strip(), "cohort": cohort}
    return sessions


def _tables(source: Path, pattern: str) -> list[Path]:
    """The tables in the source, or in the folders of archives that were unpacked side by side."""
    return sorted({*source.glob(pattern), *source.glob(f"*/{pattern}"), *source.glob(f"*/*/{pattern}")})


def _cohort(name: str) -> str:
    return next((cohort for mark, cohort in _COHORTS if mark in name.lower()), "")
