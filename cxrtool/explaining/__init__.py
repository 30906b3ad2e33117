"""Heatmaps of the image regions that affect a prediction."""
