"""What is written beside the code says what the code does."""

import importlib
import itertools
import re
import shlex
from pathlib import Path

import pytest

import cxrtool
from cxrtool.cli.main import NAMES, load, members_of, module_of

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "cxrtool").rglob("*.md"))]

LONGEST_README, LONGEST_PAGE = 200, 170

BY_PARENT = {
    "cli",
    "commands/cache",
    "commands/demo",
    "commands/info",
    "commands/recipe",
    "data/tables",
    "evaluation/metrics",
    "evaluation/plots",
    "evaluation/resampling",
    "flow/heatmaps",
}
"""Folders that the README of the folder above them explains."""

MEMBERS = {name: members_of(importlib.import_module(module_of(name))) for name in NAMES}

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
INLINE = re.compile(r"`([^`\n]+)`")


def name_of(page):
    return page.relative_to(ROOT).as_posix()


def outside_code(page):
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def headings(page):
    """The anchors of a page, as GitHub makes them."""
    lines = re.findall(r"^#+ (.*)$", outside_code(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


def calls(page):
    """Every call of `cxrtool` on a page, as words, with whether it is in a block of code."""
    for language, block in FENCE.findall(page.read_text(encoding="utf-8")):
        if language != "text":
            for line in block.replace("\\\n", " ").splitlines():
                yield from ((words, True) for words in commands_in(line))
    for text in INLINE.findall(outside_code(page)):
        if text.startswith("cxrtool "):
            yield from ((words, False) for words in commands_in(text))


def commands_in(line):
    """What follows `cxrtool` in a line of a shell, as words, command by command."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words = list(lexer)
    ends = [*(i for i, word in enumerate(words) if word in ("&&", "|", ";", ">")), len(words)]
    for start, end in itertools.pairwise([-1, *ends]):
        part = words[start + 1 : end]
        for i, word in enumerate(part[:-1]):
            if word.rpartition("/")[2] == "cxrtool" and not part[i + 1].startswith("-"):
                yield part[i + 1 :]
                break


def command_of(words):
    """The command that is called, with its kind where there are several; a kind may be left out in a sentence."""
    name, *rest = words
    kinds = MEMBERS.get(name, ())
    return f"{name} {rest[0]}" if kinds and rest and rest[0] in kinds else name


def flags_of(name):
    return {flag for parameter in load(name).params for flag in (*parameter.opts, *parameter.secondary_opts)}


def test_the_checks_run_what_the_readme_says(root):
    command = (root / ".ci" / "run").read_text(encoding="utf-8").splitlines()[-1]
    assert "pytest" in command
    assert command in (root / "README.md").read_text(encoding="utf-8")


def test_the_readme_is_for_newcomers(root):
    assert len((root / "README.md").read_text(encoding="utf-8").splitlines()) <= LONGEST_README


@pytest.mark.parametrize("page", PAGES[1:], ids=name_of)
def test_a_page_is_short(page):
    lines = page.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= LONGEST_PAGE
    assert lines[0].startswith("# ")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page):
    for link in LINK.findall(outside_code(page)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if anchor:
            assert anchor in headings(target), link


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_and_flag_exists(page):
    for words, whole in calls(page):
        if words[0] in ("COMMAND", "NAME"):
            continue
        assert words[0] in NAMES, f"no command: cxrtool {' '.join(words)}"
        name = command_of(words)
        given = [word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)]
        if whole:
            assert " " in name or not MEMBERS[name], f"which kind: cxrtool {' '.join(words)}"
        kinds = [name] if " " in name or not MEMBERS[name] else [f"{name} {kind}" for kind in MEMBERS[name]]
        known = set().union(*(flags_of(kind) for kind in kinds)) | {"--help", "-h"}
        for flag in given:
            assert flag in known, f"no flag {flag}: cxrtool {' '.join(words)}"


def test_every_command_is_called_in_the_pages():
    shown = {command_of(words) for page in PAGES for words, _ in calls(page)}
    wanted = {f"{name} {kind}" if kind else name for name in NAMES for kind in MEMBERS[name] or ("",)}
    assert wanted <= shown


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_file_and_name_exists(page):
    text = outside_code(page)
    for path in re.findall(r"`((?:cxrtool|tests)/[\w/.-]*)`", text):
        if "NAME" not in path:
            assert (ROOT / path).exists(), path
    for name, path in re.findall(r"`(\w+)`\s+in\s+`(cxrtool/[\w/]+\.py|tests/[\w/]+\.py)`", text):
        assert re.search(rf"^(class |def )?{name}\b", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE), name
    # A module of the folder that the page explains.
    for row in re.findall(r"^\| (`\w+\.py`[^|]*) \|", text, re.MULTILINE):
        for module in re.findall(r"`(\w+\.py)`", row):
            assert (page.parent / module).exists(), f"{name_of(page)}: {module}"


def test_every_folder_is_explained():
    package = ROOT / "cxrtool"
    folders = {path.parent for path in package.rglob("*.py")}
    without = {folder for folder in folders if not (folder / "README.md").exists()}
    assert {folder.relative_to(package).as_posix() for folder in without} == BY_PARENT
    for folder in without:
        assert re.search(rf"`{folder.name}/?`", (folder.parent / "README.md").read_text(encoding="utf-8")), folder


REGISTRIES = {
    "data/datasets": "cxrtool.data.datasets:ADAPTERS",
    "models": "cxrtool.training.presets:PRESETS",
    "training": "cxrtool.training.augment:LIMITS",
    "commands/enhance": "cxrtool.flow.replaying:STEPS",
    "commands/fuse": "cxrtool.evaluation.fusion:RULES",
}
"""Pages with a table of what a registry holds."""


@pytest.mark.parametrize("folder", REGISTRIES)
def test_a_table_holds_what_the_registry_holds(folder):
    module, _, name = REGISTRIES[folder].partition(":")
    text = (ROOT / "cxrtool" / folder / "README.md").read_text(encoding="utf-8")
    for entry in getattr(importlib.import_module(module), name):
        assert re.search(rf"`([\w-]+ )?{re.escape(entry)}`", text), entry


def test_every_recipe_has_its_page(root):
    folder = root / "cxrtool" / "recipes"
    text = (folder / "README.md").read_text(encoding="utf-8")
    for path in folder.glob("*.toml"):
        assert f"({path.stem}.md)" in text


def test_the_changelog_tells_of_this_version(root):
    assert f"\n## {cxrtool.__version__}\n" in (root / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_licence_goes_with_it(root):
    assert "MIT License" in (root / "LICENSE").read_text(encoding="utf-8")
