"""Metrics of predictions per class and group, with intervals and plots.

Decisions are pooled over the folds of a repeat; AUC and calibration are computed within each run; intervals come from
resampled patients. With -o, metrics, tables and plots are also written to a folder; for a run of several folds with
the training history (repetitions.png). Inconclusive predictions are no decisions and are reported as coverage.
--positive adds the operating point and the net benefit of acting on the model (decision_curve.png).

With a run or model and images with labels (RUN IMAGES), the model first predicts the images, as predict does; with -o,
predictions.csv is written too. Labels may differ from the classes in case, blanks, hyphens and underscores; others are
renamed with --relabel.

With --together, several runs that differ in their seed are one method: mean ± SD over the runs, and one row a run.

Predictions of other tools are read: columns with common names (filename, y_true, y_score, prob_<class>, y_pred) are
recognised, others are named with --id-column, --label-column, --score-column and --predicted-column. A single score is
that of --positive. Scores that are no probabilities give ROC and AUC only.

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
