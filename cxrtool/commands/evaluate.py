"""Accuracy per class and group, with intervals and pictures.

Decisions are pooled over the folds of a repeat, AUC and calibration computed inside each run; intervals come from
resampled patients. With -o the figures, tables and pictures are written to a folder too; of a run of several folds
also how they trained (repetitions.png). What was called inconclusive is no decision, and is told as coverage. With
--positive comes the operating point, and what acting on the model is worth (decision_curve.png).

Example: cxrtool evaluate run --by severity,age:0,40,65 --positive covid -o evaluation
"""

from __future__ import annotations

from cxrtool.flow.evaluating import EvaluateOptions, dump_metrics, evaluate
from cxrtool.flow.settings import Settings


def run(options: EvaluateOptions, settings: Settings) -> None:
    """Evaluate, and print the figures."""
    from cxrtool.evaluation import tables

    if results := evaluate(options, settings):
        settings.output.report(results, tables, dump_metrics)
