"""Make one answer of two networks, of an image's twins, or of runs.

All print predictions, which evaluate and compare take, or write them with -o.

Example: cxrtool fuse joint run-a run-b -o joint.csv
"""

KINDS = ("joint", "twins", "mean")
