"""What models and fitted parts have seen, so that nobody takes an answer about a training image for a test result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cxrtool.data.splitting.grouping import PATIENT, normalised
from cxrtool.data.tables.manifest import Row, read_table
from cxrtool.errors import LeakageError
from cxrtool.flow.settings import Settings

FITTED = "fitted_on.csv"
"""The table beside a model's or a part's weights that names the images they were fitted on."""


@dataclass
class Seen:
    """The pictures and patients of one or several `fitted_on.csv`.

    Attributes:
        pictures: Digest of a picture, in lower case, to the folder that tells of it.
        patients: Patient id, as `normalised` gives it, likewise.
    """

    pictures: dict[str, str]
    patients: dict[str, str]

    @classmethod
    def of(cls, folders: Sequence[Path]) -> Seen:
        """Read the `fitted_on.csv` of every folder that has one."""
        seen = cls({}, {})
        for folder in folders:
            if (folder / FITTED).is_file():
                for row in read_table(folder / FITTED).rows:
                    seen.pictures.setdefault(row.get("sha256", "").lower(), folder.name)
                    seen.patients.setdefault(normalised(row.get(PATIENT, "")), folder.name)
        seen.pictures.pop("", None)
        seen.patients.pop("", None)
        return seen

    def by(self, row: Row) -> str | None:
        """The folder that has seen a row's picture or patient, or None."""
        picture, patient = row.get("sha256", "").lower(), normalised(row.get(PATIENT, ""))
        return self.pictures.get(picture) or self.patients.get(patient)

    def refuse(self, rows: Sequence[Row], settings: Settings) -> None:
        """Refuse rows whose picture or patient a model was fitted on.

        Raises:
            LeakageError: There is one, and `--allow-leakage` was not given.
        """
        found = [(row["image_id"], folder) for row in rows if (folder := self.by(row))]
        if not found:
            return
        example = f"{found[0][0]} in {found[0][1]}"
        text = f"{len(found)} of {len(rows)} images, or their patients, were trained on, such as {example}"
        if not settings.allow_leakage:
            raise LeakageError(
                text,
                "a run's own predictions.csv files hold the honest answers for its images; --allow-leakage asks anyway",
            )
        settings.report.warn(text)
