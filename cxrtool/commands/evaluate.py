"""Metrics of predictions per class and group, with intervals and plots.

Decisions are pooled over the folds of a repeat; AUC and calibration are computed within each run; intervals come from
resampled patients. With -o, metrics, tables and plots are also written to a folder; for a run of several folds with
the training history (repetitions.png). Inconclusive predictions are no decisions and are reported as coverage.
--positive adds the operating point and the net benefit of acting on the model (decision_curve.png).

Example: cxrtool evaluate run --by severity,age:0,40,65 --positive covid -o evaluation
"""

from __future__ import annotations

from cxrtool.flow.evaluating import EvaluateOptions, dump_metrics, evaluate
from cxrtool.flow.settings import Settings


def run(options: EvaluateOptions, settings: Settings) -> None:
    """Evaluate, and print the metrics."""
    from cxrtool.evaluation import tables

    if results := evaluate(options, settings):
        settings.output.report(results, tables, dump_metrics)
