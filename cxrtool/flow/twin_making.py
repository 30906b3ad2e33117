"""The twins of decoded radiographs, batch by batch: alike for `transform`, which writes them, and for `train`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from cxrtool.flow.settings import Settings
from cxrtool.flow.signals import StopRequest
from cxrtool.flow.twin_folds import FoldGenerators

if TYPE_CHECKING:
    import numpy as np

    from cxrtool.training.store import Store


def make_twins(
    settings: Settings,
    fold: FoldGenerators,
    store: Store,
    places: Sequence[int],
    wanted: Sequence[int],
    request: StopRequest,
) -> Iterator[tuple[int, list[np.ndarray]]]:
    """Make the twins of radiographs.

    Args:
        settings: The shared options.
        fold: The generators.
        store: The radiographs at the generators' size.
        places: Of the radiographs that the fold uses, in the store.
        wanted: Which of `places` to make twins of.
        request: Heeded between batches.

    Yields:
        An element of `wanted`, and its twins (S, S) in the order of the generators, uint8 or uint16.
    """
    from cxrtool.training.device import choose_device, own_randomness, take_turns
    from cxrtool.training.twin_maker import AT_ONCE, TwinMaker

    if not wanted:
        return
    device = choose_device(settings.device)
    with (
        take_turns(device, settings.report.say, request.heed),
        own_randomness(settings.seed, settings.threads),
    ):
        maker = TwinMaker(fold.part.folder, device)
        for start in range(0, len(wanted), AT_ONCE):
            request.heed()
            chosen = wanted[start : start + AT_ONCE]
            yield from zip(chosen, maker.make([store.images[places[k]] for k in chosen]), strict=True)
