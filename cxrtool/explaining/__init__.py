"""Heatmaps: class activation maps and their overlays."""
