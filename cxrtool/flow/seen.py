"""The images that models and parts were fitted on, so that no training image counts as a test image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cxrtool.data.file_names import FITTED_ON
from cxrtool.data.splitting.grouping import PATIENT, normalised
from cxrtool.data.tables.manifest import Row, read_table
from cxrtool.errors import LeakageError
from cxrtool.flow.settings import Settings


@dataclass
class Seen:
    """The images and patients of one or several `fitted_on.csv`.

    Attributes:
        images: From the digest of an image, in lower case, to the name of the folder.
        patients: From the patient id, as `normalised` returns it, to the name of the folder.
    """

    images: dict[str, str]
    patients: dict[str, str]

    @classmethod
    def of(cls, folders: Sequence[Path]) -> Seen:
        """Read the `fitted_on.csv` of every folder that has one."""
        seen = cls({}, {})
        for folder in folders:
            if (folder / FITTED_ON).is_file():
                for row in read_table(folder / FITTED_ON).rows:
                    seen.images.setdefault(row.get("sha256", "").lower(), folder.name)
                    seen.patients.setdefault(normalised(row.get(PATIENT, "")), folder.name)
        seen.images.pop("", None)
        seen.patients.pop("", None)
        return seen

    def by(self, row: Row) -> str | None:
        """The folder whose model or part was fitted on a row's image or patient, or None."""
        image, patient = row.get("sha256", "").lower(), normalised(row.get(PATIENT, ""))
        return self.images.get(image) or self.patients.get(patient)

    def refuse(self, rows: Sequence[Row], settings: Settings) -> None:
        """Refuse rows whose image or patient a model was fitted on.

        Raises:
            LeakageError: There is one, and `--allow-leakage` was not given.
        """
        found = [(row["image_id"], folder) for row in rows if (folder := self.by(row))]
        if not found:
            return
        example = f"{found[0][0]} in {found[0][1]}"
        text = f"{len(found)} of {len(rows)} images, or their patients, were used in training, such as {example}"
        if not settings.allow_leakage:
            raise LeakageError(
                text,
                "for the images of a run, use its own predictions.csv files; --allow-leakage predicts anyway",
            )
        settings.report.warn(text)
