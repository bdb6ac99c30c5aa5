"""A task that measures its own memory.  It imports nothing else, because that would be measured too."""

import gc


def weigh(path: str) -> None:
    """Collect garbage, and append the private memory of this process to a file, in kB."""
    gc.collect()
    with open("/proc/self/smaps_rollup") as rollup:
        private = sum(int(line.split()[1]) for line in rollup if line.startswith("Private_"))
    with open(path, "a") as file:
        file.write(f"{private}\n")


def nothing() -> None:
    """Do nothing."""
