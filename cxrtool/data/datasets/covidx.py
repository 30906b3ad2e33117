"""`covidx`: COVIDx of COVID-Net (Wang, Lin, Wong 2020, Scientific Reports 10:19549), all versions for radiographs.

Layout: text files without a header, one image a line: patient, file name, label and source with spaces between (the
first versions without source), and the folders `train`, `val`, `test` of images. The files are called `train.txt` and
`test.txt` (Kaggle), `train_COVIDx9A.txt` (three classes) and `…9B.txt` (two), or `train_split_v3.txt`; where a folder
holds several versions, name the ones to read: `prepare train_COVIDx9A.txt test_COVIDx9A.txt --dataset covidx`.

- `label`: `normal`, `pneumonia`, `COVID-19`, or `positive`, `negative`, as in the file.
- `source`: the set that the image came from, by the name of that set's own adapter (`cohen`, `figure1`, `actualmed`,
  `rsna`, `bimcv`), or as in the file (`sirm`, `ricord`). It is the prefix of the patient ids, so that an image that is
  also prepared from the original set has the same patient. In this set, class and source are almost identical.
- `subset`: `train`, `validation` or `test`, by the name of the text file, for `split --from-column subset`.

A patient or a file name may contain spaces: the label is the last word that is one of the five, and of the words before
it the file name is the longest ending that exists as a file. `COVID(1).png` is also searched as `COVID-1.png`, because
the SIRM renamed its files. COVIDx CT is a set of CT slices and is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from cxrtool.data.datasets.cells import without_letter
from cxrtool.data.datasets.layout import find, folder_of, misfit
from cxrtool.data.datasets.record import Record, Request
from cxrtool.data.datasets.registry import adapter
from cxrtool.errors import InputError

SUBSETS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}
LABELS = ("normal", "pneumonia", "COVID-19", "positive", "negative")
SOURCES = {"fig1": "figure1", "actmed": "actualmed"}
_NAME = re.compile(rf"({'|'.join(SUBSETS)})(?:[._ -].*)?\.txt", re.IGNORECASE)


@adapter("covidx", mark=lambda root: bool(find(root, "train*.txt", "test*.txt")))
def read(source: Path, request: Request) -> Iterator[Record]:
    """Yield one record a line of each text file.

    Raises:
        InputError: There is no such file, two of one subset, or a line without a label.
    """
    root = folder_of(source)
    for path, subset in _lists(source):
        folders = _folders(root, path, subset)
        text = path.read_bytes().decode("utf-8-sig", "replace")
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip():
                continue
            patient, image, label, origin = _parts(line.split(), folders, f"{path}, line {number}")
            columns = {
                "label": label,
                "patient_id": without_letter(patient) if origin == "figure1" else patient,
                "subset": subset,
                **({"source": origin} if origin else {}),
            }
            yield Record(image, columns, image.relative_to(root).as_posix())


def _lists(source: Path) -> list[tuple[Path, str]]:
    """The text files, each with its subset."""
    paths = [source] if source.is_file() else find(source, "*.txt")
    named = [(path, SUBSETS[match[1].lower()]) for path in paths if (match := _NAME.fullmatch(path.name))]
    if not named:
        raise misfit(source, "covidx", "text files such as train_COVIDx9A.txt and test_COVIDx9A.txt")
    if any("covidx_ct" in path.name.lower() or "covidx-ct" in path.name.lower() for path, _ in named):
        raise InputError(f"{source}: expected radiographs, found the CT slices of COVIDx CT")
    for subset in dict.fromkeys(subset for _, subset in named):
        names = [path.name for path, other in named if other == subset]
        if len(names) > 1:
            raise InputError(
                f"{source}: expected one list of the images for {subset}, found {', '.join(names)}",
                f"name those of one version: cxrtool prepare {source / names[0]} … --dataset covidx",
            )
    return named


def _folders(root: Path, path: Path, subset: str) -> list[Path]:
    """The folders to search for images of a subset."""
    names = dict.fromkeys([subset, *(name for name, other in SUBSETS.items() if other == subset)])
    folders = [parent / name for parent in (root, root / "data") for name in names]
    return [*(folder for folder in folders if folder.is_dir()), folders[0], path.parent]


def _parts(words: list[str], folders: list[Path], place: str) -> tuple[str, Path, str, str]:
    """Patient, file, label and source of a line."""
    at = next((index for index in range(len(words) - 1, 1, -1) if words[index] in LABELS), None)
    if at is None or len(words) - at > 2:
        raise InputError(f"{place}: expected patient, file, {', '.join(LABELS)}, and source, found '{' '.join(words)}'")
    origin = words[at + 1].lower() if len(words) > at + 1 else ""
    for start in range(1, at):
        name = " ".join(words[start:at])
        for spelling in dict.fromkeys((name, re.sub(r"\((\d+)\)", r"-\1", name))):
            for folder in folders:
                if (folder / spelling).is_file():
                    return " ".join(words[:start]), folder / spelling, words[at], SOURCES.get(origin, origin)
    return " ".join(words[: at - 1]), folders[0] / words[at - 1], words[at], SOURCES.get(origin, origin)
