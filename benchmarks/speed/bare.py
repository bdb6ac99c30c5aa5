"""The limit of the machine: a minimal process forks and reaps children that do nothing.

    python -I -S bare.py (fork|ten_milliseconds|interpreter) SECONDS PARALLELISM [PYTHON]

Prints the number of children per second.  It imports as little as possible, because each fork copies the
pages of this process.
"""

import os
import sys
import time


def _child(kind: str, python: str) -> None:
    if kind == "interpreter":
        os.posix_spawn(python, [python, "-c", "pass"], os.environ)
    elif os.fork() == 0:
        if kind == "ten_milliseconds":
            until = time.process_time() + 0.01
            while time.process_time() < until:
                pass
        os._exit(0)


def _main(kind: str, seconds: str, parallelism: str, python: str = "") -> None:
    running = finished = 0
    began = time.monotonic()
    while (now := time.monotonic()) < began + float(seconds):
        while running >= int(parallelism):
            os.wait()
            running -= 1
            finished += 1
        _child(kind, python)
        running += 1
    while running:
        os.wait()
        running -= 1
    print(finished / (now - began))


_main(*sys.argv[1:])
