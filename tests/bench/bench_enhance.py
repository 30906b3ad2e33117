"""`enhance` against the same chain written with scikit-image, on one processor: grey values, and file to file.

Both take the same pictures of 8 bits (and, for the record, of 16) in turns, because other programs slow both. The
chain with ribs is written for scikit-image as one would: resize, the network as it stands, resize back.
`CXRTOOL_RIBS` names a rib part; without it the one that ships, else one that has learnt nothing and computes as long.
From file to file both spend most of their time on PNG, which is the same work for both.
"""

import itertools
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from cxrtool.commands.enhance.images import Task, apply, enhance_one
from cxrtool.flow.folder import AT
from cxrtool.imaging.histogram import count_levels, pack
from cxrtool.models.parts import SHIPPED, load_network, networks, read_part, save_part

SIDES, IMAGES = (512, 1024), 8
WANTED = 8


def draw(seed: int, side: int, depth: int = 8) -> np.ndarray:
    """Smooth shapes under a detector's noise."""
    generator = np.random.default_rng(seed)
    grey = cv2.resize(generator.random((12, 12), np.float32), (side, side), interpolation=cv2.INTER_CUBIC) * 200
    grey = np.clip(grey + generator.normal(20, 4, grey.shape), 0, 255) / 255
    return np.rint(grey * (2**depth - 1)).astype(f"u{depth // 8}")


@pytest.fixture
def ribs(tmp_path):
    """A located entry of a rib part."""
    place = Path(os.environ.get("CXRTOOL_RIBS") or SHIPPED / "ribs-default")
    if not (place / "part.json").is_file():
        place, known = tmp_path / "ribs", networks("ribs")["autoencoder"]
        save_part(place, "ribs", "autoencoder", known.build(), known.form, {})
    return {"step": "suppress-ribs", "version": 1, "part": read_part(place, "ribs").identity(), AT: str(place)}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    yield
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])


def by_scikit_image(pixels: np.ndarray, reference: np.ndarray, ribs: dict | None = None) -> np.ndarray:
    from skimage import exposure, transform, util

    white = np.iinfo(pixels.dtype).max
    values = exposure.match_histograms(pixels, reference) / white
    if ribs:
        folder = Path(ribs[AT])
        form = read_part(folder, "ribs").form
        shown = transform.resize(values, (form.size, form.size), anti_aliasing=True).astype(np.float32)
        with torch.inference_mode():
            given = torch.from_numpy(1 - shown if form.invert else shown)[None, None]
            answer = load_network(folder, "ribs")(given)[0, 0].numpy()
        values = transform.resize(1 - answer if form.invert else answer, values.shape, anti_aliasing=True)
    equalised = exposure.equalize_adapthist(np.clip(values, 0, 1), clip_limit=2 / 256)
    return util.img_as_uint(equalised) if pixels.dtype == np.uint16 else util.img_as_ubyte(equalised)


def tell(what: str, ours: float, theirs: float, count: int) -> None:
    wanted = f" (wanted at least {WANTED})" if what.startswith("match-histogram,clahe") else ""
    print(f"{what}: {count / ours:.1f} images/s, scikit-image {count / theirs:.1f}: {theirs / ours:.1f} times{wanted}")


@pytest.mark.bench
def test_match_and_clahe(in_turns):
    print()
    for depth in (8, 16):
        for side in SIDES:
            pictures, reference = [draw(k, side, depth) for k in range(IMAGES)], draw(99, side, depth)
            match = {"step": "match-histogram", "version": 1, "quantiles": pack(count_levels(reference))}
            chain = [match, {"step": "clahe", "version": 1, "clip": 2.0, "tiles": 8}]
            ours, theirs = in_turns(
                lambda pictures=pictures, chain=chain: [apply(p, chain) for p in pictures],
                lambda pictures=pictures, reference=reference: [by_scikit_image(p, reference) for p in pictures],
            )
            tell(f"match-histogram,clahe of {side} pixels and {depth} bits", ours, theirs, IMAGES)


@pytest.mark.bench
def test_match_and_clahe_from_file_to_file(tmp_path, in_turns):
    from skimage import io

    print()
    for depth, side in itertools.product((8, 16), SIDES):
        paths = [tmp_path / f"{side}-{k}.png" for k in range(IMAGES)]
        for k, path in enumerate(paths):
            cv2.imwrite(str(path), draw(k, side, depth))
        reference = draw(99, side, depth)
        match = {"step": "match-histogram", "version": 1, "quantiles": pack(count_levels(reference))}
        chain = [match, {"step": "clahe", "version": 1, "clip": 2.0, "tiles": 8}]

        def ours(paths=paths, chain=chain):
            for path in paths:
                enhance_one(Task("", str(path), ((0, ("out.png",)),)), target=tmp_path, before=[], ways=[chain])

        def theirs(paths=paths, reference=reference):
            for path in paths:
                io.imsave(str(tmp_path / "their.png"), by_scikit_image(io.imread(str(path)), reference))

        tell(f"file to file, {side} pixels and {depth} bits", *in_turns(ours, theirs), IMAGES)


@pytest.mark.bench
def test_with_ribs(ribs, in_turns):
    print(f"\nrib network: {ribs['part']['network']}")
    pictures, reference = [draw(k, 1024) for k in range(2)], draw(99, 1024)
    match = {"step": "match-histogram", "version": 1, "quantiles": pack(count_levels(reference))}
    chain = [match, ribs, {"step": "clahe", "version": 1, "clip": 2.0, "tiles": 8}]
    ours, theirs = in_turns(
        lambda: [apply(p, chain) for p in pictures], lambda: [by_scikit_image(p, reference, ribs) for p in pictures]
    )
    tell("match-histogram,suppress-ribs,clahe of 1024 pixels", ours, theirs, len(pictures))
