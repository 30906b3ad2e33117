"""Fit a network for lungs, opacities or ribs, or generators.

Example: cxrtool fit lungs prepared --splits splits.csv -o lungs
"""

KINDS = ("lungs", "opacities", "ribs", "generators")
