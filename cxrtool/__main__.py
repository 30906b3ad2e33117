"""The program: `cxrtool`, and `python -m cxrtool`."""

from typing import NoReturn

from cxrtool import processors, stopping
from cxrtool.errors import StoppedError


def main() -> NoReturn:
    """Run the command line and leave with its exit code; a signal ends it from here on."""
    try:
        stopping.start()
        processors.spin_briefly()
        from cxrtool.cli.main import main as run

        run()
    except StoppedError as stopped:
        # It came before or after the command.
        stopping.leave(stopped.exit_code, stopped.message)


if __name__ == "__main__":
    main()
