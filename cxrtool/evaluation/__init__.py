"""Evaluation of predictions: metrics, intervals, comparison, calibration, plots."""
