"""The names of the files that commands exchange."""

MANIFEST = "manifest.csv"
SPLITS = "splits.csv"
PREDICTIONS = "predictions.csv"
REJECTS = "rejects.csv"
RUN_FILE = "run.json"

METADATA = "metadata.csv"
"""The table beside the images of a set, as many sets have it."""

MODEL = "model.json"
MODEL_WEIGHTS = "model.safetensors"
PART = "part.json"
PART_WEIGHTS = "part.safetensors"
FITTED_ON = "fitted_on.csv"
"""The images that a model or a part was fitted on, in its folder."""

HISTORY = "history.csv"
CURVES = "curves.png"
AUDIT = "audit.json"

WEIGHTS = (".pth", ".pt", ".safetensors", ".ckpt", ".h5", ".keras", ".npz")
"""Suffixes of files of weights, which other programs write and which are no models by themselves."""

IMPORT_HINT = "`cxrtool weights import FILE --model NAME --classes A,B -o model` makes a model of a .pth file"
"""What to do with such a file."""
