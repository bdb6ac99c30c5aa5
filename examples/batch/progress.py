"""Live progress: a bar on a terminal, where rich is installed; else a line now and then."""

from __future__ import annotations

import sys
import time
from typing import Any

_LINE_EVERY_S = 2.0
#: What a terminal can show and somebody can read; each costs some milliseconds of the loop.
_BAR_EVERY_S = 0.25


class Lines:
    """Plain lines."""

    every_s = _LINE_EVERY_S

    def __init__(self, total: int) -> None:
        self._began = time.monotonic()
        self._total = total

    def show(self, done: int, text: str) -> None:
        """One more."""
        print(f"{time.monotonic() - self._began:6.1f} s  {done:6,} of {self._total:,}  {text}", flush=True)

    def stop(self) -> None:
        """Nothing is left on the screen that was not to stay."""


class Bar:
    """A bar, drawn by the loop itself: a thread of its own would draw while the loop is to be measured."""

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
        """Draw it anew."""
        self._progress.update(self._task, completed=done, description=text, refresh=True)

    def stop(self) -> None:
        """Leave it as it is."""
        self._progress.stop()


class Progress:
    """Shows how far it is, in whatever way there is."""

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
        """Whether it makes sense to show something again."""
        return time.monotonic() >= self._due

    def show(self, done: int, text: str) -> None:
        """How far it is."""
        self._due = time.monotonic() + self._shown.every_s
        self._shown.show(done, text)

    def stop(self) -> None:
        """What was shown last stays."""
        self._shown.stop()
