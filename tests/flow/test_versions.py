import importlib.metadata

from cxrtool.flow.versions import version_of


def test_a_distribution_is_asked_once_and_an_absent_one_is_unknown(monkeypatch):
    version_of.cache_clear()
    numpy = importlib.metadata.version("numpy")
    assert version_of("numpy") == numpy
    assert version_of("no-such-distribution") == "unknown"
    monkeypatch.setattr(importlib.metadata, "version", lambda name: 1 / 0)
    assert version_of("numpy") == numpy
    assert version_of("no-such-distribution") == "unknown"
