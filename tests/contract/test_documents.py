"""What is written beside the code says what the code does."""

import subprocess
import sys

import cxrtool


def test_the_checks_run_what_the_readme_says(root):
    command = (root / ".ci" / "run").read_text(encoding="utf-8").splitlines()[-1]
    assert "pytest" in command
    assert command in (root / "README.md").read_text(encoding="utf-8")


def test_the_readme_shows_the_help_as_it_is(root):
    command = [sys.executable, "-m", "cogapp", "--check", "--diff", "README.md"]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_changelog_tells_of_this_version(root):
    assert f"\n## {cxrtool.__version__}\n" in (root / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_licence_goes_with_it(root):
    assert "MIT License" in (root / "LICENSE").read_text(encoding="utf-8")
