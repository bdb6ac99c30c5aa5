"""Shows progress: a bar if the output is a terminal and rich is installed, else a line every few seconds."""

from __future__ import annotations

import sys
import time
from typing import Any

_LINE_EVERY_S = 2.0
#: The interval between two updates of the bar, in seconds.  Each update blocks the loop for milliseconds.
_BAR_EVERY_S = 0.25


class Lines:
    """Progress as plain lines."""

    every_s = _LINE_EVERY_S

    def __init__(self, total: int) -> None:
        self._began = time.monotonic()
        self._total = total

    def show(self, done: int, text: str) -> None:
        """Print a line."""
        print(f"{time.monotonic() - self._began:6.1f} s  {done:6,} of {self._total:,}  {text}", flush=True)

    def stop(self) -> None:
        """Do nothing; lines stay on the screen."""


class Bar:
    """Progress as a bar.  It is drawn on the loop, because a thread would disturb the measurements."""

    every_s = _BAR_EVERY_S

    def __init__(self, total: int, rich_progress: Any) -> None:
        self._progress = rich_progress.Progress(
            rich_progress.BarColumn(),
            rich_progress.MofNCompleteColumn(),
            rich_progress.TextColumn("{task.description}"),
            rich_progress.TimeElapsedColumn(),
            auto_refresh=False,
        )
        self._task = self._progress.add_task("", total=total)
        self._progress.start()

    def show(self, done: int, text: str) -> None:
        """Redraw the bar."""
        self._progress.update(self._task, completed=done, description=text, refresh=True)

    def stop(self) -> None:
        """Stop; the bar stays on the screen."""
        self._progress.stop()


class Progress:
    """Shows progress as a bar or as lines."""

    def __init__(self, total: int) -> None:
        self._shown: Lines | Bar = Lines(total)
        if sys.stdout.isatty():
            try:
                import rich.progress
            except ImportError:
                pass
            else:
                self._shown = Bar(total, rich.progress)
        self._due = 0.0

    @property
    def is_due(self) -> bool:
        """Whether it is time for the next update."""
        return time.monotonic() >= self._due

    def show(self, done: int, text: str) -> None:
        """Show the progress."""
        self._due = time.monotonic() + self._shown.every_s
        self._shown.show(done, text)

    def stop(self) -> None:
        """Stop; the last update stays on the screen."""
        self._shown.stop()
