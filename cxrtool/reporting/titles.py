"""The titles of the sections of a report, used by pages, links and checklists."""

from __future__ import annotations

RESULTS = "Results"
ERRORS = "Most confident errors"
HEATMAPS = "Scores of the heatmaps"
AUDIT = "Audit"
EXTERNAL_MODEL = "The model on external images"
EXTERNAL = f"{AUDIT}: {EXTERNAL_MODEL}"
FLOW = "Flow of images"
TABLE_ONE = "Table 1"
SETTINGS = "Training settings"
CURVES = "Training curves"
METHODS = "Methods, to paste and edit"
LIMITS = "Limits"
MACHINES = "Software, machines and commands"
CHECKLIST = "Checklist"
