"""`python -m cxrtool` is `cxrtool`."""

from cxrtool.cli.main import main

if __name__ == "__main__":
    main()
