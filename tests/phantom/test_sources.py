"""The sources are well-formed and do not look alike."""

import itertools

from cxrtool.phantom.sources import BORDERS, FILES, MARKERS, SOURCES


def test_sources_choose_from_what_there_is():
    for name, source in SOURCES.items():
        assert source.name == name
        assert source.file in FILES
        assert source.marker in ("", *MARKERS)
        assert source.border in ("", *BORDERS)
        assert 0.5 < source.height <= 1
        assert 0.5 < source.width <= 1
        assert max(source.height, source.width) == 1
        assert 0 <= source.lung[0] < source.lung[1] < 0.7


def test_every_kind_of_file_is_written_by_some_source():
    assert {source.file for source in SOURCES.values()} == set(FILES)


def test_no_two_sources_look_alike():
    for one, other in itertools.combinations(SOURCES.values(), 2):
        assert (one.gamma, one.detail, one.scatter, one.noise) != (
            other.gamma,
            other.detail,
            other.scatter,
            other.noise,
        )
