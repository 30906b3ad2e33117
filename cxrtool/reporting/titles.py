"""What the sections of a report are called: the one place from which pages, links and checklists take their words."""

from __future__ import annotations

RESULTS = "Results"
ERRORS = "Most confident errors"
AUDIT = "Audit"
OUTSIDE = "The model elsewhere"
ELSEWHERE = f"{AUDIT}: {OUTSIDE}"
FLOW = "Flow of images"
TABLE_ONE = "Table 1"
SETTINGS = "Settings of training"
CURVES = "Training curves"
METHODS = "Methods, to paste and edit"
LIMITS = "Limits"
MACHINES = "Software, machines and commands"
CHECKLIST = "Checklist"
