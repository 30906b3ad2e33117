"""Fuse predictions: of two networks, of the twins of an image, of runs.

All kinds print predictions, which evaluate and compare accept, or write them with -o.

Example: cxrtool fuse joint run-a run-b -o joint.csv
"""

KINDS = ("joint", "twins", "mean")
