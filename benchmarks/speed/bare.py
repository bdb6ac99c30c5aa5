"""The limit of the machine: processes that do nothing, made and reaped by one that is as small as it can be.

    python -I -S bare.py (fork|ten_milliseconds|interpreter) SECONDS PARALLELISM [PYTHON]

Prints how many a second.  Imports nothing, since each page of its own would be copied for each child.
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
