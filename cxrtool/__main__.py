"""The program: `cxrtool`, and `python -m cxrtool`."""

import os
import sys
from pathlib import Path
from typing import NoReturn

from cxrtool import processors, stopping
from cxrtool.errors import StoppedError


def main() -> NoReturn:
    """Run the command line and leave with its exit code; a signal ends it from here on."""
    try:
        stopping.start()
        processors.spin_briefly()
        if processors.rank():
            # Of the processes of `torchrun` one speaks; another says only what fails in it alone.
            sys.stdout = sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
        from cxrtool.cli.main import main as run

        run()
    except StoppedError as stopped:
        # It came before or after the command.
        stopping.leave(stopped.exit_code, stopped.message)


if __name__ == "__main__":
    main()
