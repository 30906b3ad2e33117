"""`cache list` and `cache empty` as they are typed."""

import json
import os
import time

import pytest

from cxrtool.data.cache import IMAGES, INDEX

DAY = 86400
NAMES = [f"{number:024x}" for number in range(2)]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache with images that were used today and images that were used forty days ago."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for name, days in zip(NAMES, (0, 40), strict=True):
        folder = tmp_path / "cache" / name
        folder.mkdir(parents=True)
        (folder / IMAGES).write_bytes(b"x" * 4_000_000)
        (folder / INDEX).write_text(json.dumps({"sha256": ["a"], "made_by": "cxrtool train prepared -o run"}))
        for file in folder.iterdir():
            os.utime(file, (time.time() - days * DAY - 60,) * 2)
    return tmp_path / "cache"


def test_the_list(cxr, cache):
    done = cxr("cache", "list", "--cache", cache, "--format", "json")
    old, new = json.loads(done.out)
    assert (old["what"], old["last used"], old["files"]) == ("1 decoded image", "40 days", "2")
    assert (new["made by"], new["last used"]) == ("cxrtool train prepared -o run", "0 hours")
    assert new["where"] == str(cache / NAMES[0])
    assert "2 sets of decoded images, 8.0 MB" in done.err


def test_weights_of_the_hub_are_listed_and_stay(cxr, cache, tmp_path):
    blob = tmp_path / "hub" / "models--timm--vgg16.tv_in1k" / "blobs" / "ab"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"x" * 200_000)
    assert "weights vgg16.tv_in1k" in cxr("cache", "list", "--cache", cache).out
    assert cxr("cache", "empty", "--cache", cache).code == 0
    assert blob.exists()


def test_only_old_images_are_removed_and_counted(cxr, cache):
    dry = cxr("cache", "empty", "--cache", cache, "--older-than", "30", "--dry-run")
    assert "would free 4.0 MB, 1 set of decoded images" in dry.err
    assert sorted(path.name for path in cache.iterdir()) == NAMES
    done = cxr("cache", "empty", "--cache", cache, "--older-than", "30")
    assert f"removed {cache / NAMES[1]}: 4.0 MB, last used 40 days ago" in done.err
    assert [path.name for path in cache.iterdir()] == NAMES[:1]
    assert "freed 4.0 MB, 1 set" in cxr("cache", "empty", "--cache", cache).err
    assert "freed 0.0 MB, 0 sets" in cxr("cache", "empty", "--cache", cache).err


def test_another_folder_is_refused(cxr, tmp_path):
    (tmp_path / "thesis.doc").write_text("years of work")
    refused = cxr("cache", "empty", "--cache", tmp_path)
    assert refused.code == 1
    assert "expected a cache of decoded images, found a folder with thesis.doc" in refused.err
    assert (tmp_path / "thesis.doc").exists()
