"""Fit a lung network, a rib network, or class-inherent generators.

Example: cxrtool fit lungs prepared --splits splits.csv -o lungs
"""

KINDS = ("lungs", "ribs", "generators")
