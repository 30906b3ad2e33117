"""A `cxrtool` whose libraries are loaded already: `warm.py call SOCKET ARGUMENTS…` is a fork of `warm.py serve SOCKET`.

On a set of thirty tiny images, loading them is most of what a command costs, and a recipe has a dozen commands.
"""

import contextlib
import json
import os
import selectors
import signal
import socket
import sys

LOADED = ("torch", "torch._dynamo", "timm", "torchvision", "pandas", "sklearn.linear_model", "scipy.stats", "cv2")
LOADED += ("matplotlib.pyplot", "cxrtool.cli.main", "cxrtool.__main__")


def call(address, arguments):
    """Ask for a command, with the files, the folder and the environment of this process, and leave with its code."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        asked = {"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}  # noqa: PTH109
        socket.send_fds(connection, [b"\0"], [0, 1, 2])
        connection.sendall(json.dumps(asked).encode() + b"\n")
        code = int(connection.makefile().readline())
    sys.exit(code if code >= 0 else 128 - code)


def serve(address):
    """Answer calls, each in a process of its own, until standard input is closed."""
    import importlib

    for name in LOADED:
        importlib.import_module(name)
    with socket.socket(socket.AF_UNIX) as listener, selectors.DefaultSelector() as selector:
        listener.bind(f"{address}.new")
        listener.listen()
        # It is there when it answers.
        os.rename(f"{address}.new", address)  # noqa: PTH104
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        selector.register(listener, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        while all(key.fileobj is listener for key, _ in selector.select()):
            connection, _ = listener.accept()
            with connection:
                if not os.fork():
                    _answer(connection)


def _answer(connection):
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, files, *_ = socket.recv_fds(connection, 1, 3)
    asked = json.loads(connection.makefile().readline())
    child = os.fork()
    if not child:
        connection.close()
        for number, file in enumerate(files):
            os.dup2(file, number)
        # Those of the server know whether its own files could be searched.
        sys.stdin, sys.stdout, sys.stderr = (open(k, mode, closefd=False) for k, mode in enumerate("rww"))  # noqa: SIM115
        _run(asked)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    # Whoever asked may have been killed.
    with contextlib.suppress(OSError):
        connection.sendall(f"{code}\n".encode())
    os._exit(0)


def _run(asked):
    import traceback

    code = 1
    try:
        os.chdir(asked["folder"])
        os.environ.clear()
        os.environ.update(asked["environment"])
        program = sys.modules["cxrtool.__main__"]
        # What workers of the command take for the main module.
        sys.modules["__main__"] = program
        sys.argv = [program.__file__, *asked["arguments"]]
        program.main()
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 0 if leaving.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        call(sys.argv[2], sys.argv[3:])
