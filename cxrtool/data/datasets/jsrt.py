"""`jsrt`: the database of the Japanese Society of Radiological Technology (Shiraishi et al. 2000), 247 radiographs.

Layout: `All247images/JPCLN001.IMG` (154 with a nodule) and `JPCNN001.IMG` (93 without), in the raw format of
`jsrt_raw`; `Clinical_Information/CLNDAT_EN.txt` and `CNNDAT_EN.TXT`. Optional, in the same folder:

- the masks of the SCR database (van Ginneken et al. 2006): `scr/fold1/masks/left lung/JPCLN001.gif` and so on;
- the rib-free images of BSE-JSRT (Juhász et al. 2010): a folder with `bse` or `bone` in its name, with files of the
  same stems, in any format that cxrtool reads.

Columns: `label` `nodule` or `no nodule`; `mask`, both lungs joined; `ribless`; `age`, `sex`, and the `diagnosis` of
nodules, from the tables; `view` PA. `patient_id`: one image a patient.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from cxrtool.data.datasets import folder
from cxrtool.data.datasets.layout import folder_of, misfit
from cxrtool.data.datasets.record import BESIDE, Record, Request
from cxrtool.data.datasets.registry import adapter
from cxrtool.data.tables.manifest import Row
from cxrtool.data.tables.people import sex_of

LABELS = {"JPCLN": "nodule", "JPCNN": "no nodule"}
NAME = re.compile(r"(JPCLN|JPCNN)\d{3}", re.IGNORECASE)
LUNGS = ("left lung", "right lung")
BONES = re.compile(r"bse|bone|ribless", re.IGNORECASE)
_FACTS = re.compile(r"\b(\d{1,3})\s+(male|female)\b", re.IGNORECASE)


@adapter("jsrt", mark=lambda root: any(root.rglob("JPC[LN]N001.IMG")))
def read(source: Path, request: Request) -> Iterator[Record]:
    """Yield every `.IMG` file below the source, with its masks and its rib-free image.

    Raises:
        InputError: There is none.
    """
    root = folder_of(source)
    companions = _companions(root, request)
    tables = _tables(root)
    empty = True
    for record in folder.read(root, request):
        match = NAME.fullmatch(record.path.stem)
        if match is None or record.path.suffix.lower() != ".img":
            request.skipped.append(record.path)
            continue
        empty = False
        stem = match[0].upper()
        columns = {"image_id": stem, "patient_id": stem, "label": LABELS[match[1].upper()]}
        columns |= {"source": "jsrt", "view": "PA"}
        columns |= tables.get(stem, {})
        parts = [companions[name, stem] for name in LUNGS if (name, stem) in companions]
        masks = tuple(parts) if len(parts) == len(LUNGS) else ()
        beside = {name: file for name in BESIDE if (file := companions.get((name, stem)))}
        yield replace(record, columns=columns, masks=masks, beside=beside)
    if empty:
        raise misfit(source, "jsrt", "JPCLN001.IMG and so on, in any folder below")


def _companions(root: Path, request: Request) -> dict[tuple[str, str], Path]:
    """Masks and rib-free images by kind and stem."""
    found: dict[tuple[str, str], Path] = {}
    for record in folder.read(root, Request(exclude=request.exclude)):
        path = record.path
        stem = path.stem.upper()
        if path.suffix.lower() == ".img" or not NAME.fullmatch(stem):
            continue
        inside = [part.lower() for part in Path(record.relative).parts[:-1]]
        if inside and inside[-1] in LUNGS:
            found[inside[-1], stem] = path
        elif any(BONES.search(part) for part in inside):
            found["ribless", stem] = path
    return found


def _tables(root: Path) -> dict[str, Row]:
    """Age, sex and diagnosis by image; the two tables have different columns, but age always precedes sex."""
    patients: dict[str, Row] = {}
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() != ".txt" or not path.name.upper().startswith(("CLNDAT", "CNNDAT")):
            continue
        for line in path.read_text(encoding="latin-1").splitlines():
            name, facts = NAME.match(line.strip()), _FACTS.search(line)
            if name and facts:
                cells = [cell.strip() for cell in line.strip().split("\t")]
                last = cells[-1] if len(cells) > 5 and not cells[-1].isdigit() else ""
                patients[name[0].upper()] = {"age": facts[1], "sex": sex_of(facts[2]), "diagnosis": last}
    return patients
