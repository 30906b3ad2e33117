"""Manifests, splits, and the reading of radiographs."""
