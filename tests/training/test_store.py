import errno
import json
import multiprocessing
import os
import resource
import shutil
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from cxrtool.errors import ChangedError, ImageError, InputError, OutputError
from cxrtool.flow.parallel import map_items
from cxrtool.flow.replaying import decode
from cxrtool.training.store import Store, deepen, open_store

SIZE = 8


def in_process(function, items, *, workers, preload=()):
    """A map that starts no process."""
    for item in items:
        try:
            yield item, function(item)
        except InputError as error:
            yield item, error


class Decoder:
    """Reads arrays from memory and counts how often."""

    def __init__(self, pixels):
        self.pixels, self.count = pixels, 0

    def __call__(self, path):
        self.count += 1
        pixels = self.pixels[path.name]
        if pixels is None:
            raise ImageError("truncated PNG")
        return pixels, f"sha of {path.name}"


@pytest.fixture
def folder(tmp_path):
    """Files whose size and time stand for their content."""
    path = tmp_path / "images"
    path.mkdir()
    for index in range(6):
        (path / f"{index}.png").write_bytes(bytes(index + 1))
    return path


@pytest.fixture
def pixels():
    return {f"{i}.png": np.random.default_rng(i).integers(0, 256, (SIZE, SIZE), np.uint8) for i in range(6)}


def paths_of(folder):
    return sorted(folder.iterdir())


def open_(folder, decoder, tmp_path, **changes):
    told = {"size": SIZE, "key": {"size": SIZE, "fit": "squash"}, "cache": tmp_path / "cache", "mapper": in_process}
    return open_store(paths_of(folder), decoder, **{**told, "workers": 1, **changes})


def only(path):
    """The single store in a cache."""
    (found,) = [entry for entry in path.iterdir() if entry.is_dir()]
    return found


def test_images_are_decoded_once(folder, pixels, tmp_path):
    decoder, said, counted = Decoder(pixels), [], []
    store = open_(folder, decoder, tmp_path, say=said.append, advance=counted.append)
    assert decoder.count == 6 == sum(counted)
    assert len(said) == 1
    assert "decoded 6 images" in said[0]
    again = open_(folder, decoder, tmp_path, say=said.append)
    assert decoder.count == 6
    assert len(said) == 1
    for opened in (store, again):
        assert len(opened) == 6
        assert isinstance(opened.images, np.memmap)
        assert opened.images.dtype == np.uint8
        assert opened.scale == 255.0
        assert np.array_equal(opened.images, np.stack(list(pixels.values())))
        assert opened.sha256 == [f"sha of {i}.png" for i in range(6)]
        assert opened.failed == {}


@pytest.mark.parametrize("late", [0, 5])
def test_one_deeper_image_makes_all_of_them_deep(folder, pixels, tmp_path, late):
    pixels[f"{late}.png"] = np.random.default_rng(9).integers(0, 65536, (SIZE, SIZE), np.uint16)
    store = open_(folder, Decoder(pixels), tmp_path)
    assert store.images.dtype == np.uint16
    assert store.scale == 65535.0
    for index, name in enumerate(pixels):
        expected = pixels[name] if index == late else pixels[name].astype(np.uint16) * 257
        assert np.array_equal(store.images[index], expected)
    # White stays white, black stays black, whatever the depth.
    assert deepen(np.array([0, 255], np.uint8)).tolist() == [0, 65535]


@pytest.mark.parametrize("resident", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_batch_is_the_array_at_its_indices(dtype, resident):
    images = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (7, SIZE, SIZE), dtype, endpoint=True)
    images[0, 0, 0] = np.iinfo(dtype).max
    store = Store(images, [""] * 7)
    if resident:
        store.to(torch.device("cpu"))
    for indices in (np.array([4, 0, 0, 6]), np.array([], np.int64), np.arange(7)):
        batch = store[indices]
        assert batch.shape == (len(indices), 1, SIZE, SIZE)
        assert np.array_equal(batch[:, 0].numpy(), images[indices])


def test_deep_images_are_not_copied_into_memory_as_a_whole():
    store = Store(np.zeros((3, SIZE, SIZE), np.uint16), [""] * 3).to(torch.device("cpu"))
    assert store._resident is None


def test_the_file_stays_as_it_is_whatever_happens_to_the_array(folder, pixels, tmp_path):
    store = open_(folder, Decoder(pixels), tmp_path)
    before = (only(tmp_path / "cache") / "images.npy").read_bytes()
    store.images[:] = 0
    store.to(torch.device("cpu"))[np.arange(6)].fill_(1)
    assert (only(tmp_path / "cache") / "images.npy").read_bytes() == before


def test_what_cannot_be_read_is_listed_and_the_rest_is_there(folder, pixels, tmp_path):
    pixels["2.png"] = None
    for _ in range(2):
        store = open_(folder, Decoder(pixels), tmp_path)
        assert store.failed == {2: "truncated PNG"}
        assert not store.images[2].any()
        assert store.sha256[2] == ""
        assert np.array_equal(store.images[5], pixels["5.png"])


def test_an_exchanged_image_stops_it(folder, pixels, tmp_path):
    def decode(path):
        if path.name == "2.png":
            raise ChangedError(f"{path}: found it changed")
        return pixels[path.name], "sha"

    with pytest.raises(ChangedError, match=r"2\.png: found it changed"):
        open_(folder, decode, tmp_path)


def flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("position", [0, 12, 200, -1])
def test_a_flipped_byte_of_the_images_is_noticed(folder, pixels, tmp_path, position):
    decoder = Decoder(pixels)
    open_(folder, decoder, tmp_path)
    flip(only(tmp_path / "cache") / "images.npy", position)
    store = open_(folder, decoder, tmp_path)
    assert decoder.count == 12
    assert np.array_equal(store.images, np.stack(list(pixels.values())))


def test_a_flipped_byte_of_the_index_is_noticed_or_harmless(folder, pixels, tmp_path):
    decoder = Decoder(pixels)
    first = open_(folder, decoder, tmp_path)
    index = only(tmp_path / "cache") / "index.json"
    sound = index.read_bytes()
    for position in range(0, len(sound), 5):
        flip(index, position)
        store = open_(folder, decoder, tmp_path)
        assert (store.sha256, store.failed) == (first.sha256, first.failed), position
        index.write_bytes(sound)


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"sha256": [], "failed": {}, "index_crc32": 0}'])
def test_a_broken_index_is_no_bug(folder, pixels, tmp_path, text):
    decoder = Decoder(pixels)
    open_(folder, decoder, tmp_path)
    (only(tmp_path / "cache") / "index.json").write_text(text)
    open_(folder, decoder, tmp_path)
    assert decoder.count == 12


def test_a_half_written_store_is_written_anew(folder, pixels, tmp_path):
    decoder = Decoder(pixels)
    open_(folder, decoder, tmp_path)
    (only(tmp_path / "cache") / "index.json").unlink()
    open_(folder, decoder, tmp_path)
    assert decoder.count == 12


@pytest.mark.parametrize("change", ["key", "time", "size", "order", "fewer", "place"])
def test_another_key_is_another_store(folder, pixels, tmp_path, change):
    decoder = Decoder(pixels)
    open_(folder, decoder, tmp_path)
    paths, changes = paths_of(folder), {}
    if change == "key":
        changes["key"] = {"size": SIZE, "fit": "pad"}
    elif change == "time":
        os.utime(paths[3], ns=(1, 1))
    elif change == "size":
        status = paths[3].stat()
        paths[3].write_bytes(b"more than before")
        os.utime(paths[3], ns=(status.st_atime_ns, status.st_mtime_ns))
    elif change == "place":
        shutil.copytree(folder, tmp_path / "elsewhere")
        paths = paths_of(tmp_path / "elsewhere")
    paths = {"order": paths[::-1], "fewer": paths[:3]}.get(change, paths)
    key, cache = changes.get("key", {"size": SIZE, "fit": "squash"}), tmp_path / "cache"
    store = open_store(paths, decoder, size=SIZE, key=key, cache=cache, mapper=in_process, workers=1)
    assert decoder.count == 6 + len(paths)
    assert np.array_equal(store.images, np.stack([pixels[path.name] for path in paths]))


def test_worker_processes_fill_the_same_store(tmp_path):
    source = tmp_path / "images"
    source.mkdir()
    pictures = [np.random.default_rng(i).integers(0, 256, (20, 24), np.uint8) for i in range(11)]
    for index, picture in enumerate(pictures):
        cv2.imwrite(str(source / f"{index:02}.png"), picture)
    deep = np.random.default_rng(99).integers(0, 65536, (20, 24), np.uint16)
    cv2.imwrite(str(source / "11.png"), deep)
    (source / "12.png").write_bytes((source / "11.png").read_bytes()[:-20])
    work = partial(decode, chain=[], size=SIZE, fit="squash")
    store = open_store(paths_of(source), work, size=SIZE, key={}, cache=tmp_path / "cache", mapper=map_items, workers=2)
    assert list(store.failed) == [12]
    expected, digest = work(source / "11.png")
    assert np.array_equal(store.images[11], expected)
    assert store.sha256[11] == digest
    for index in range(11):
        assert np.array_equal(store.images[index], deepen(work(source / f"{index:02}.png")[0]))


def _open_slowly(folder, cache, log):
    """In a process of its own: note begin and end of decoding."""

    def slow(path):
        import time

        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(0.02)
        return np.zeros((SIZE, SIZE), np.uint8), "sha"

    open_store(paths_of(folder), slow, size=SIZE, key={}, cache=cache, mapper=in_process, workers=1)


def test_tasks_that_start_together_decode_once(folder, tmp_path):
    log = tmp_path / "log"
    context = multiprocessing.get_context("fork")
    tasks = [context.Process(target=_open_slowly, args=(folder, tmp_path / "cache", log)) for _ in range(3)]
    for task in tasks:
        task.start()
    for task in tasks:
        task.join()
    assert [task.exitcode for task in tasks] == [0, 0, 0]
    lines = log.read_text().splitlines()
    assert len(lines) == 6
    assert len(set(lines)) == 1
    assert not [path for path in (tmp_path / "cache").iterdir() if path.name.startswith(".")]


def test_a_cache_that_cannot_be_written_is_told_before_an_image_is_lost(folder, pixels, tmp_path):
    decoder, (soft, hard) = Decoder(pixels), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, hard))
    try:
        with pytest.raises(OutputError, match="larger than a file may be here"):
            open_(folder, decoder, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert decoder.count == 0
    assert open_(folder, decoder, tmp_path).failed == {}


def test_room_on_the_disk_is_taken_before_the_first_image(folder, pixels, tmp_path, monkeypatch):
    def refuse(handle, start, length):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    decoder = Decoder(pixels)
    with pytest.raises(OutputError, match="bytes are free"):
        open_(folder, decoder, tmp_path)
    assert decoder.count == 0


def test_a_missing_image_does_not_stop_the_store(folder, pixels, tmp_path):
    paths = [*paths_of(folder), folder / "gone.png"]
    pixels["gone.png"] = None
    store = open_store(
        paths, Decoder(pixels), size=SIZE, key={}, cache=tmp_path / "cache", mapper=in_process, workers=1
    )
    assert list(store.failed) == [6]


def test_the_index_is_plain_json(folder, pixels, tmp_path):
    open_(folder, Decoder(pixels), tmp_path)
    content = json.loads((only(tmp_path / "cache") / "index.json").read_text())
    assert sorted(content) == ["crc32", "failed", "index_crc32", "made_by", "sha256"]
    assert Path(tmp_path / "cache").is_dir()
