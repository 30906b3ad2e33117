import json
import subprocess
import sys
from pathlib import Path

import pytest

import cxrtool
from cxrtool.commands import help as pages
from cxrtool.commands.help import title_of, topics

PACKAGE = Path(cxrtool.__file__).parent


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package in the place of cxrtool's, with pages of which two have folders of one name."""
    for folder, title in (("", "All"), ("a", "The a"), ("b/a", "Another a"), ("b/c", "The c")):
        page = tmp_path / "package" / folder / "README.md"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(f"# {title}\n\nMore about it: é.\n", encoding="utf-8")
    monkeypatch.setattr(pages.cxrtool, "__file__", str(tmp_path / "package" / "__init__.py"))
    return tmp_path / "package"


def test_topics_are_folders_and_paths_where_two_have_one_name(package):
    assert set(topics()) == {"package", "a", "b/a", "c"}
    assert topics()["b/a"] == package / "b" / "a" / "README.md"


def test_without_a_topic_it_lists_them(cxr, package):
    outcome = cxr("help")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == "package  All\na        The a\nb/a      Another a\nc        The c\n"


def test_the_list_for_programs(cxr, package):
    assert json.loads(cxr("help", "--format", "json").out)[1] == {"topic": "a", "page": "The a"}


def test_a_topic_is_printed_as_it_is_written(cxr, package):
    outcome = cxr("help", "b/a")
    assert (outcome.code, outcome.out, outcome.err) == (0, "# Another a\n\nMore about it: é.\n", "")


def test_an_unknown_topic_names_the_nearest(cxr, package):
    outcome = cxr("help", "packages")
    assert (outcome.code, outcome.out) == (2, "")
    assert "found 'packages'; did you mean 'package'?" in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_every_page_of_cxrtool_is_a_topic():
    assert set(topics().values()) == set(PACKAGE.rglob("README.md"))
    assert topics()["weights"] == PACKAGE / "weights" / "README.md"
    assert topics()["commands/weights"] == PACKAGE / "commands" / "weights" / "README.md"


def test_a_command_without_a_page_leads_to_one_with_its_words(cxr):
    for name, near in (("split", "splitting"), ("segment", "segmenting"), ("explain", "explaining")):
        assert f"did you mean '{near}'?" in cxr("help", name).err


@pytest.mark.parametrize("page", topics().values(), ids=lambda page: page.parent.name)
def test_a_title_says_what_a_page_is_about(page):
    assert " " in title_of(page)


def test_it_starts_without_what_is_slow():
    script = (
        "import sys; from cxrtool.cli.main import run; run(['help', 'audit']); print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"numpy", "pandas", "torch", "cv2"} & set(done.stderr.split())
