"""The store: every image of a manifest decoded and resized once, in one array, read by index.

The array is memory-mapped, so that it may be larger than memory, and kept in the cache under a digest of everything it
depends on; a checksum detects a damaged file. It is uint8 or, if one image is deeper, uint16.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

import cxrtool
from cxrtool.data.cache import IMAGES, INDEX
from cxrtool.data.files import atomic_path, atomic_write, locked, saying_what_fails
from cxrtool.data.structured import load_json
from cxrtool.errors import ChangedError, CxrtoolError, count_of

if TYPE_CHECKING:
    import torch


class HasFiles(Protocol):
    """An item that says what files it is made of."""

    @property
    def files(self) -> tuple[Path, ...]:
        """All of them."""


Item = Path | tuple[Path, ...] | HasFiles
"""The source of one image of a store: a file, or several, such as an image and its mask."""

Decode = Callable[[Any], tuple[np.ndarray, str]]
"""Reads one item: returns its pixels at the store's size, uint8 or uint16, and its pixel SHA-256.

They are grey, (H, W), or in a store of three channels may be (H, W, 3).
"""

Mapper = Callable[..., Iterator[tuple[Any, Any]]]
"""Applies a function to items in worker processes: `cxrtool.flow.parallel.map_items`."""

ON_DEVICE_SHARE = 0.4
"""The share of a GPU's free memory that images may use; otherwise they stay in main memory and are copied by batch."""


@dataclass
class Store:
    """Decoded images.

    Attributes:
        images: Array (N, H, W) or (N, H, W, 3), uint8 or uint16, memory-mapped.
        sha256: Pixel digest of each image before resizing.
        failed: Index and reason of each image that could not be read; its pixels are zero.
        beside: Number of processes that may copy the images to the same device.
    """

    images: np.ndarray
    sha256: list[str]
    failed: dict[int, str] = field(default_factory=dict)
    beside: int = 1
    _resident: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def scale(self) -> float:
        """The value of white: 255 or 65,535."""
        return float(np.iinfo(self.images.dtype).max)

    def to(self, device: torch.device) -> Store:
        """Copy the images to a device if they fit there; `__getitem__` then indexes on the device."""
        import torch

        if self._resident is not None and self._resident.device.type == device.type:
            return self
        deep = self.images.dtype == np.uint16
        if device.type == "cpu":
            # Deep images would double in memory; they are converted batch by batch instead.
            self._resident = None if deep else torch.from_numpy(self._readable())
        elif self.images.nbytes * (1 + deep) < ON_DEVICE_SHARE / self.beside * torch.cuda.mem_get_info(device)[0]:
            self._resident = torch.from_numpy(self._readable()).to(device)
        return self

    def __getitem__(self, indices: np.ndarray) -> torch.Tensor:
        """Images of these indices (B, 1 or 3, H, W), with the dtype and device of the store."""
        import torch

        if self._resident is not None:
            from cxrtool.training.device import on_device

            where = on_device(np.asarray(indices, np.int64), self._resident.device)
            return channels_first(self._resident.index_select(0, where))
        return channels_first(torch.from_numpy(self._readable(indices)))

    def _readable(self, indices: np.ndarray | None = None) -> np.ndarray:
        values = self.images if indices is None else self.images[indices]
        # torch has few operations on uint16; int32 holds it, and the store on disk stays small.
        return values.astype(np.int32) if values.dtype == np.uint16 else np.asarray(values)


def channels_first(images: torch.Tensor) -> torch.Tensor:
    """Images (B, H, W) to (B, 1, H, W), and (B, H, W, 3) to (B, 3, H, W)."""
    return images.unsqueeze(1) if images.ndim == 3 else images.movedim(-1, 1)


def open_store(
    paths: Sequence[Item],
    decode: Decode,
    *,
    size: int,
    key: Mapping[str, object],
    cache: Path,
    mapper: Mapper,
    workers: int,
    colour: bool = False,
    made_by: str = "",
    advance: Callable[[int], None] = lambda count: None,
    say: Callable[[str], None] = lambda text: None,
) -> Store:
    """Open the store of these images; they are decoded unless the cache has it.

    Args:
        paths: The images; for each a file, or a tuple of its files.
        decode: Reads one; must be picklable.
        size: Side of the square images in pixels.
        key: Everything except the files on which the pixels depend.
        cache: The folder to keep it in.
        mapper: Map over worker processes.
        workers: Their number.
        colour: Keep three channels.
        made_by: The command line, for the list of the cache.
        advance: Called with the number of images that were done.
        say: Called with a message about what was written.

    Returns:
        The store; images that could not be read are in `failed`.
    """
    folder = cache / _name(paths, {**key, "colour": True} if colour else key)
    with saying_what_fails(folder, "--cache"), locked(cache / f".{folder.name}.lock", option="--cache"):
        store = _load(folder)
        if store is None:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            shape = (len(paths), size, size, *((3,) if colour else ()))
            _fill(folder, paths, decode, shape, mapper, workers, advance, made_by)
            store = _load(folder)
            if store is not None:
                say(f"decoded {count_of(len(paths), 'image')} into {folder} ({store.images.nbytes / 2**20:.1f} MiB)")
    if store is None:
        raise CxrtoolError(f"{folder}: the decoded images cannot be read back", "check the disk of --cache")
    return store


def _files_of(item: Item) -> tuple[Path, ...]:
    if isinstance(item, Path):
        return (item,)
    return item if isinstance(item, tuple) else item.files


def _name(paths: Sequence[Item], key: Mapping[str, object]) -> str:
    hasher = hashlib.sha256(json.dumps([cxrtool.__version__, key], sort_keys=True, default=str).encode())
    for path in (file for item in paths for file in _files_of(item)):
        try:
            status = path.stat()
            hasher.update(f"{path.absolute()}:{status.st_size}:{status.st_mtime_ns}\n".encode())
        except OSError:
            hasher.update(f"{path}: missing\n".encode())
    return hasher.hexdigest()[:24]


def _load(folder: Path) -> Store | None:
    index, data = folder / INDEX, folder / IMAGES
    try:
        content = load_json(index)
        if _checksum(content["sha256"], content["failed"]) != content["index_crc32"]:
            return None
        # Copy-on-write: torch needs a writable array, and the file must not change.
        images = np.load(data, mmap_mode="c")
        if zlib.crc32(memoryview(images).cast("B") if images.size else b"") != content["crc32"]:
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    failed = {int(position): reason for position, reason in content["failed"].items()}
    # The list of the cache shows when it was last used.
    with contextlib.suppress(OSError):
        os.utime(index)
    return Store(images, content["sha256"], failed)


def _checksum(sha256: Sequence[str], failed: Mapping[str, str]) -> int:
    return zlib.crc32(json.dumps([sha256, failed]).encode())


def _fill(
    folder: Path,
    paths: Sequence[Item],
    decode: Decode,
    shape: tuple[int, ...],
    mapper: Mapper,
    workers: int,
    advance: Callable[[int], None],
    made_by: str,
) -> None:
    done: dict[int, tuple[str, str]] = {}
    target = folder / IMAGES
    with atomic_path(target) as temporary:
        for dtype in (np.uint8, np.uint16):
            _allocate(temporary, dtype, shape)
            work = partial(_decode_into, temporary, decode)
            if not _pass(enumerate(paths), work, done, mapper, workers, advance):
                break
            # A deeper image was found: all images are written again with 16 bits.
            done.clear()
        images = np.load(temporary, mmap_mode="r")
        checksum = zlib.crc32(memoryview(images).cast("B") if images.size else b"")
    digests = [done[i][0] for i in range(len(paths))]
    failed = {str(i): reason for i, (_, reason) in sorted(done.items()) if reason}
    content = {"crc32": checksum, "index_crc32": _checksum(digests, failed), "sha256": digests, "failed": failed}
    atomic_write(folder / INDEX, json.dumps({**content, "made_by": made_by}))


def _allocate(path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> None:
    """Create an empty array, with all of its disk space allocated.

    Writing into a mapped file without allocated space kills the process when the disk is full.
    """
    np.lib.format.open_memmap(path, "w+", dtype, shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _pass(
    items: Iterable[tuple[int, Item]],
    work: Callable[[tuple[int, Item]], tuple[str, bool]],
    done: dict[int, tuple[str, str]],
    mapper: Mapper,
    workers: int,
    advance: Callable[[int], None],
) -> bool:
    results = mapper(work, items, workers=workers, preload=("cxrtool.data.reading.images",))
    for (position, _), result in results:
        if isinstance(result, ChangedError):
            # Without this image, or with another in its place, the answer would be one to another question.
            results.close()  # type: ignore[attr-defined]
            raise result
        if isinstance(result, CxrtoolError):
            done[position] = ("", result.message)
        elif result[1]:
            results.close()  # type: ignore[attr-defined]
            return True
        else:
            done[position] = (result[0], "")
        advance(1)
    return False


def _decode_into(target: Path, decode: Decode, item: tuple[int, Item]) -> tuple[str, bool]:
    """Decode one image into the array; returns its digest and whether it needs a deeper array."""
    position, path = item
    pixels, digest = decode(path)
    array = np.lib.format.open_memmap(target, "r+")
    if pixels.dtype == np.uint16 and array.dtype == np.uint8:
        return digest, True
    pixels = deepen(pixels) if array.dtype == np.uint16 else pixels
    # Of a grey image all channels of a store of three are alike.
    array[position] = pixels if pixels.ndim == array.ndim - 1 else pixels[..., None]
    return digest, False


def deepen(pixels: np.ndarray) -> np.ndarray:
    """8 bits to 16 bits by a factor of 257, so that white stays white; 16 bits unchanged."""
    return pixels.astype(np.uint16) * np.uint16(257) if pixels.dtype == np.uint8 else pixels
