"""What the predictions are worth: metrics, intervals, comparison, calibration, probes, plots, reports."""
