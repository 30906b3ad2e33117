"""`kaggle-pneumonia`: Chest X-Ray Images (Pneumonia), of Kermany et al. 2018 (Cell 172:1122), as Kaggle has them.

Layout: `{train,val,test}/{NORMAL,PNEUMONIA}/*.jpeg`, sometimes with a full copy in a subfolder. File names contain
cause and patient: `person9_bacteria_41.jpeg`, `person100_virus_184.jpeg`, `IM-0115-0001.jpeg`,
`NORMAL2-IM-0335-0001.jpeg`; those of the Mendeley edition, `BACTERIA-1008087-0001.jpeg` and `VIRUS-…`, `NORMAL-…`, are
read too.

- `label`: `NORMAL`, `bacterial` or `virus`, from the file name; `PNEUMONIA` where the name has no cause.
- `patient_id`: the number in the name, `person9` or `normal-0115`. Parts of the set reuse numbers, so that two children
  may share one. They are kept together, because otherwise a child could be on both sides of a split. `train` and `test`
  share numbers, which is why `split --from-column subset` refuses them.
- `subset`: the folder, `train`, `validation` or `test`, for `split --from-column subset`.
- `view`: `AP` for all images, by the set's description. `population`: `paediatric, 1 to 5 years`; a network that
  distinguishes these images from those of adults has learnt nothing about pneumonia.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from cxrtool.data.datasets import folder
from cxrtool.data.datasets.layout import misfit, within
from cxrtool.data.datasets.record import Record, Request
from cxrtool.data.datasets.registry import adapter

SUBSETS = {"train": "train", "val": "validation", "test": "test"}
CLASSES = ("NORMAL", "PNEUMONIA")
POPULATION = "paediatric, 1 to 5 years"
CAUSES = {"bacteria": "bacterial", "virus": "virus"}

_PERSON = re.compile(r"person(\d+)_(bacteria|virus)_", re.IGNORECASE)
_NORMAL = re.compile(r"(?:NORMAL2-)?IM-(\d+)-", re.IGNORECASE)
_MENDELEY = re.compile(r"(BACTERIA|VIRUS|NORMAL)-(\d+)-", re.IGNORECASE)


@adapter("kaggle-pneumonia", mark=lambda root: any(within(root, "train").glob("*/PNEUMONIA")))
def read(source: Path, request: Request) -> Iterator[Record]:
    """Yield every image of both classes in the folders of the three subsets.

    Raises:
        InputError: No subset has either class.
    """
    root = within(source, "train")
    folders = [(subset, label) for subset in SUBSETS for label in CLASSES if (root / subset / label).is_dir()]
    if not folders:
        raise misfit(source, "kaggle-pneumonia", "{train,val,test}/{NORMAL,PNEUMONIA}")
    request.remarks.append(f"{POPULATION}: do not mix these images with adults; see the column population")
    for subset, label in folders:
        for record in folder.read(root / subset / label, request):
            cause, patient = parse_name(record.path.name)
            columns = {
                "label": (cause or label) if label == "PNEUMONIA" else label,
                "patient_id": patient,
                "view": "AP",
                "source": "kaggle-pneumonia",
                "subset": SUBSETS[subset],
                "population": POPULATION,
            }
            yield replace(record, columns=columns, relative=f"{subset}/{label}/{record.relative}")


def parse_name(name: str) -> tuple[str, str]:
    """Cause and patient in a file name; empty where the name has neither.

    >>> parse_name("person9_bacteria_41.jpeg"), parse_name("NORMAL2-IM-0335-0001.jpeg")
    (('bacterial', 'person9'), ('', 'normal-0335'))
    >>> parse_name("VIRUS-1008087-0001.jpeg")
    ('virus', 'person1008087')
    """
    if match := _PERSON.match(name):
        return CAUSES[match[2].lower()], f"person{match[1]}"
    if match := _NORMAL.match(name):
        return "", f"normal-{match[1]}"
    if match := _MENDELEY.match(name):
        cause = CAUSES.get(match[1].lower(), "")
        return cause, f"{'person' if cause else 'normal-'}{match[2]}"
    return "", ""
