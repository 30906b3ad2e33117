"""What a developer runs; `nox` alone runs the tests, `nox -l` lists the rest."""

import nox

nox.needs_version = ">=2024.10"
nox.options.sessions = ["tests"]
nox.options.reuse_existing_virtualenvs = True

PROJECT = nox.project.load_toml("pyproject.toml")["project"]
TOOLS = {line.split(">=")[0]: line for line in PROJECT["optional-dependencies"]["dev"]}


@nox.session
def demo(session: nox.Session) -> None:
    """Install the package as a user does and run the demonstration."""
    session.install(".")
    session.run("cxrtool", "demo", "-o", session.create_tmp() + "/demo", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests."""
    session.install("-e", ".[dev]")
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format."""
    session.install(TOOLS["ruff"])
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types."""
    session.install("-e", ".[dev]")
    session.run("mypy")


@nox.session
def bench(session: nox.Session) -> None:
    """Measure, and print the figures."""
    session.install("-e", ".[dev]")
    # One after the other: what is measured must have the machine for itself.
    files = ("-m", "bench", "-s", "-n", "0", "-o", "python_files=bench_*.py")
    session.run("python", "-m", "pytest", *files, *(session.posargs or ["tests/bench"]))
