"""Image ids that are unique and safe as file names; patient ids that are unique across sources, or hashed.

What a table says is never trusted: `fault_of_text` is the rule for every id, class and source that is read, and
`fault_of_name` the stricter one for what names a file or a folder.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

LONGEST = 120
"""Characters of an id; a file name may have 255 bytes, and steps add words before and after an id."""

LONGEST_NAME = 200
"""Bytes of an id of somebody else that may still name a file."""

SUFFIXES = {".png", ".jpg", ".jpeg", ".jpe", ".tif", ".tiff", ".bmp", ".dcm", ".dicom", ".dic", ".ima"}

# Names that Windows reserves for devices, whatever their suffix.
_RESERVED = {"con", "prn", "aux", "nul", *(f"com{n}" for n in range(10)), *(f"lpt{n}" for n in range(10))}


@dataclass(frozen=True)
class Naming:
    """What an id is made of.

    Attributes:
        stem: The file's name without its suffix, or the id that a table gives.
        parent: The name of the file's folder.
        relative: The path below the source, which identifies the file on every machine.
    """

    stem: str
    parent: str
    relative: str


def stem_of(name: str) -> str:
    """A file's name without the suffix of an image; other dots belong to the name.

    >>> stem_of("1.2.840.113619"), stem_of("person1_virus.JPEG")
    ('1.2.840.113619', 'person1_virus')
    """
    start, dot, suffix = name.rpartition(".")
    return start if start and (dot + suffix).lower() in SUFFIXES else name


def safe_name(text: str) -> str:
    """Reduce a text to letters, digits, dots, hyphens and underscores, which every file system accepts.

    >>> safe_name("../../etc/passwd"), safe_name("Thorax de côté (1)"), safe_name("..")
    ('etc_passwd', 'Thorax_de_cote_1', 'image')
    """
    plain = "".join(mark for mark in unicodedata.normalize("NFKD", text) if not unicodedata.combining(mark))
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", plain).strip("._-") or "image"
    if len(name) > LONGEST:
        name = f"{name[: LONGEST - 9]}-{_short(name)}"
    return f"{name}_" if name.split(".")[0].lower() in _RESERVED else name


BLANK = "only blanks"

# Line breaks, tabs, zero bytes and all other control characters.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def fault_of_text(text: str) -> str:
    r"""What is wrong with a text as an id, a class or a source: one line is expected; empty where nothing is.

    >>> fault_of_text("Viral/Bacterial"), fault_of_text("a\nb"), fault_of_text("  ")
    ('', 'a line break', 'only blanks')
    """
    if found := _CONTROL.search(text):
        names = {"\n": "a line break", "\r": "a line break", "\t": "a tab", "\0": "a zero byte"}
        return names.get(found[0], "a control character")
    return BLANK if text and not text.strip() else ""


def are_plain(texts: Sequence[str]) -> bool:
    r"""Whether `fault_of_text` finds nothing in any of these texts: quick for a million.

    >>> are_plain(["a/b", ""]), are_plain(["a", "\t"]), are_plain(["a", " "])
    (True, False, False)
    """
    return not any(map(str.isspace, texts)) and not _CONTROL.search("".join(texts))


def fault_of_name(text: str) -> str:
    """What is wrong with a text as the name of a file, in words; empty where nothing is.

    Names that `safe_name` makes are right, and so is every other name that stays in its folder, is no hidden file,
    which steps remove, and is no option for a shell that lists it.

    >>> fault_of_name("Thorax côté (1)"), fault_of_name("../x"), fault_of_name(".."), fault_of_name("-rf")
    ('', "a '/'", 'a dot at its start', 'a hyphen at its start')
    """
    if not text:
        return "nothing"
    if fault := fault_of_text(text):
        return fault
    if found := next((mark for mark in "/\\" if mark in text), ""):
        return f"a '{found}'"
    starts = {".": "a dot at its start", "-": "a hyphen at its start"}
    if text[0] in starts:
        return starts[text[0]]
    size = len(text.encode("utf-8", "surrogatepass"))
    return f"{size} bytes" if size > LONGEST_NAME else ""


def one_file(text: str) -> str:
    """The name as file systems compare it that take upper and lower case, or both forms of an accent, as the same.

    >>> one_file("Im1") == one_file("im1"), one_file("c\u00f4t\u00e9") == one_file("co\u0302te\u0301")
    (True, True)
    """
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())


def one_line(text: str) -> str:
    r"""A text from a file name or a header without line breaks and other control characters; others stay as they are.

    >>> one_line("covid\n19"), one_line("No  Finding")
    ('covid 19', 'No  Finding')
    """
    return " ".join(_CONTROL.sub(" ", text).split()) if _CONTROL.search(text) else text


def shown(text: str) -> str:
    r"""A text for a message of one line, shortened.

    >>> shown("a\nb")
    "'a\\nb'"
    """
    short = text if len(text) <= 60 else f"{text[:60]}…"
    return "'" + short.encode("unicode_escape").decode() + "'" if _CONTROL.search(short) else f"'{short}'"


def unique_ids(namings: Sequence[Naming]) -> list[str]:
    """Give every image an id that differs from all others, also where upper and lower case are the same.

    The id is the stem where it is unique. Images that share a stem get the parent folder as a prefix; those that still
    clash get a digest of their path as a suffix. So an id does not depend on the order of the other images.

    >>> unique_ids([Naming("a", "x", "x/a.png"), Naming("A", "y", "y/A.png"), Naming("b", "y", "y/b.png")])
    ['x_a', 'y_A', 'b']
    """
    ids = [safe_name(naming.stem) for naming in namings]
    for rename in (_with_parent, _with_digest):
        counts = Counter(name.lower() for name in ids)
        ids = [rename(naming) if counts[name.lower()] > 1 else name for naming, name in zip(namings, ids, strict=True)]
    taken: set[str] = set()
    for index, name in enumerate(ids):
        # For a file that a table lists twice.
        candidate, number = name, 1
        while candidate.lower() in taken:
            number += 1
            candidate = f"{name}-{number}"
        taken.add(candidate.lower())
        ids[index] = candidate
    return ids


def _with_parent(naming: Naming) -> str:
    return safe_name(f"{naming.parent}_{naming.stem}")


def _with_digest(naming: Naming) -> str:
    return f"{_with_parent(naming)}-{_short(naming.relative)}"


def _short(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:8]


def keyed(text: str, salt: str) -> str:
    """16 hexadecimal digits of the HMAC-SHA256 (RFC 2104) of a text: nobody without the salt can tell the text."""
    return hmac.new(salt.encode(), text.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()[:16]


def patient_id(identity: str, source: str, salt: str | None = None) -> str:
    """A patient id with its source as prefix; with a salt, the id is replaced by a keyed hash.

    Args:
        identity: As in the table or the header; an id with a colon has a prefix already.
        source: The name of the data set.
        salt: With it the id is replaced by 16 hexadecimal digits of its HMAC-SHA256 (RFC 2104). The same salt gives
            the same digits, so that data sets that were prepared separately can be joined.

    >>> patient_id("007", "clinic"), patient_id("clinic:007", "other"), patient_id("", "clinic")
    ('clinic:007', 'clinic:007', '')
    >>> patient_id("clinic:007", "other", "s") == patient_id("007", "clinic", "s")
    True
    """
    identity = one_line(identity).strip()
    if not identity:
        return ""
    prefix, colon, plain = identity.partition(":")
    if not colon:
        prefix, plain = source, identity
    if salt is not None:
        # 7 and 7.0 are one patient, also once they are hashed.
        plain = re.sub(r"^(\d+)\.0+$", r"\1", plain)
        plain = keyed(f"{prefix}:{plain}", salt)
    return f"{prefix}:{plain}"
