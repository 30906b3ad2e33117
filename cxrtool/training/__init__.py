"""Fit networks: the image store, augmentation, features, the engine, checkpoints and presets."""
