"""Files of weights from elsewhere: what cannot be read is refused in words that say what the file is and what to do.

torch's own messages speak of its options, and recommend the one that runs the code in a file.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from cxrtool.data.archives import check_archive
from cxrtool.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

_STARTS = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes it"),
    (b"version https://git-lfs", "a Git LFS pointer instead of the file"),
    (b"<!DOCTYPE", "a web page"),
    (b"<!doctype", "a web page"),
    (b"<html", "a web page"),
    (b"GGUF", "a GGUF file"),
    (b"\x93NUMPY", "a numpy array"),
    (b"\x1f\x8b", "a gzip archive"),
)
_ZIP, _PICKLES = b"PK\x03\x04", (b"\x80", b"PK\x03\x04")
_CODE = re.compile(r"GLOBAL ([\w.]+)")

SAVE_WEIGHTS = (
    "in the program that made it, save the weights alone: torch.save(model.state_dict(), 'weights.pth'); "
    "`cxrtool weights import weights.pth --model NAME --classes A,B -o model` then makes a model of them"
)
_AGAIN = "copy or download it again"
_KINDS = (
    "expected a state dictionary of PyTorch, as .safetensors or saved by torch.save as .pth; "
    "`cxrtool weights import FILE --model NAME --classes A,B -o model` makes a model of it"
)
_SCRIPT = "a TorchScript program"


def check_file(path: Path) -> None:
    """Check that a file may be one of weights, before it is opened as one.

    Raises:
        InputError: It is empty, of another kind, or a zip file that inflates: torch stores weights as they are.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(32)
    if not head:
        raise _refusal(path, "the file is empty", _AGAIN)
    found = next((name for start, name in _STARTS if head.startswith(start)), None)
    if found is None and path.suffix != ".safetensors":
        if head.startswith(_ZIP):
            found = _kind_of_zip(path)
        elif not head.startswith(_PICKLES):
            found = "a file of an unknown kind"
    if found:
        hint = SAVE_WEIGHTS if found == _SCRIPT else _AGAIN if "pointer" in found or "page" in found else _KINDS
        raise _refusal(path, f"found {found}", hint)


def why_unreadable(path: Path, error: Exception) -> InputError:
    """The refusal of a file that torch or safetensors could not read."""
    text = str(error)
    if code := _CODE.search(text):
        what = f"the Python object {code[1]}"
    elif "weights_only" in text or "Weights only" in text:
        what = "Python objects"
    else:
        return _refusal(path, "it is cut off or damaged", _AGAIN)
    return _refusal(path, f"besides tensors it has {what}, which may run any code", SAVE_WEIGHTS)


def why_not_loaded(path: Path, described_in: str, error: Exception) -> str:
    """Why the weights of one of our own folders cannot be loaded, for a message."""
    if isinstance(error, FileNotFoundError):
        return f"{path}: cannot be loaded: no such file"
    if isinstance(error, OSError):
        return f"{path}: cannot be loaded: {error.strerror or error}"
    # torch has this class for tensors that do not fit, and safetensors its own for a file that it cannot read.
    damaged = type(error) is not RuntimeError
    reason = "it is cut off or damaged" if damaged else f"its tensors are not those of the network in {described_in}"
    return f"{path}: cannot be loaded: {reason}"


def check_tensor(path: Path, name: str, value: Tensor) -> None:
    """Raise an `InputError` for a tensor that is larger than its file: one value that is repeated a million times."""
    if value.numel() * value.element_size() > path.stat().st_size:
        raise _refusal(path, f"'{name}' has the shape {tuple(value.shape)}, for which the file is too small", _AGAIN)


def _kind_of_zip(path: Path) -> str | None:
    try:
        names = [member.filename for member in check_archive(path, path.stat().st_size, "weights")]
    except InputError:
        raise _refusal(path, "it inflates to more than its own size, as no file of torch does", _AGAIN) from None
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        raise _refusal(path, "it is cut off or damaged", _AGAIN) from None
    parts = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in parts:
        return _SCRIPT
    return None if "data.pkl" in parts else "a ZIP archive of another kind, such as a .keras file"


def _refusal(path: Path, reason: str, hint: str) -> InputError:
    return InputError(f"--weights {path}: cannot be read safely as a file of weights: {reason}", hint)
