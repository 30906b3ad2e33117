"""Import or export a network; fetch or list ImageNet weights.

Example: cxrtool weights import best.pth --model resnet50 --classes covid,normal --size 224 -o model
"""

KINDS = ("import", "export", "fetch", "list")
