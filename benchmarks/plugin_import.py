"""Measures what the plugin costs a pytest run without ``--executor``.

    python benchmarks/plugin_import.py

Starts pytest alternately with and without the plugin, and imports the plugin in new interpreters that have
imported pytest.  It prints medians in milliseconds.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time

_IMPORT = """
import time, pytest
began = time.perf_counter()
import executor_conformance.plugin
print((time.perf_counter() - began) * 1e3)
"""


def main() -> None:
    """Measure and print the results."""
    alone = [
        float(
            subprocess.run([sys.executable, "-c", _IMPORT], capture_output=True, text=True, check=True).stdout
        )
        for _ in range(15)
    ]
    times: dict[str, list[float]] = {"with": [], "without": []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(15):
            for name, arguments in (("with", []), ("without", ["-p", "no:executor_conformance"])):
                began = time.perf_counter()
                subprocess.run(
                    [sys.executable, "-m", "pytest", "-q", *arguments, folder],
                    stdout=subprocess.DEVNULL,
                    check=False,
                )
                times[name].append((time.perf_counter() - began) * 1e3)
    print(f"import of the plugin module: median {statistics.median(alone):.2f} ms, max {max(alone):.2f} ms")
    medians = {name: statistics.median(values) for name, values in times.items()}
    print(
        f"an empty pytest run: {medians['with']:.0f} ms with the plugin, {medians['without']:.0f} ms without"
    )


if __name__ == "__main__":
    main()
