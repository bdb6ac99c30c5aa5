"""Runs one contender once, in this process, and prints its cost as JSON."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys

from benchmarks.remote.contenders import CONTENDERS
from benchmarks.remote.work import Work


def main() -> None:
    """Measure and print the cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    for field in dataclasses.fields(Work):
        kind = {"str": str, "int": int, "float": float}[str(field.type)]
        parser.add_argument("--" + field.name.replace("_", "-"), type=kind, required=True)
    options = vars(parser.parse_args())
    name = options.pop("name")
    contender = next(one for one in CONTENDERS if one.name == name)
    work = Work(**options)
    if contender.interpreter:  # this process only starts it and is not measured
        os.sched_setaffinity(0, os.sched_getaffinity(0) - {work.core} or {work.core})
    else:
        os.sched_setaffinity(0, {work.core})
    json.dump(dataclasses.asdict(contender.run(work)), sys.stdout)


if __name__ == "__main__":
    main()
