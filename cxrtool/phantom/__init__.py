"""Radiographs that are drawn from anatomy, with the truth that no real set carries."""
