"""Import a network of another program; fetch or list ImageNet weights.

Example: cxrtool weights import best.pth --model resnet50 --classes covid,normal --size 224 -o model
"""

KINDS = ("import", "fetch", "list")
