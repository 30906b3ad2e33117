"""Synthetic radiographs that are drawn from anatomy, with their ground truth."""
