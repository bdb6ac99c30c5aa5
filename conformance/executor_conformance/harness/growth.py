"""Distinguishes a leak from a one-time step and from something bounded that fills up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

_FIRST_WINDOW = 3


def keeps_growing(
    samples: list[int],
    more: Iterable[int],
    *,
    least: float,
    windows: int,
    is_over: Callable[[], bool] = lambda: False,
) -> bool | None:
    """Whether a measure grows in every one of several windows, each as long as all windows before it.

    A step, such as a module that is imported late, is in one window only.  Anything with a bound is full at
    some point.  A leak grows in every window, even if it grows in lumps.

    :param samples: at least one, taken while the executor is idle; further samples are appended.
    :param more: the next samples, taken as they are needed.
    :param least: the growth per sample that counts, as the mean of a window, and also as the mean of the
        later half of a long window.
    :param windows: in how many windows it has to grow; these have 3, 3, 6, 12 ... samples.
    :param is_over: whether there is no time for another window.  At least two windows are checked, and three
        are needed to report a leak.
    :returns: ``None`` if there was too little time to decide.
    """
    source: Iterator[int] = iter(more)
    begin, end = 0, _FIRST_WINDOW
    for number in range(1, windows + 1):
        while len(samples) <= end:
            samples.append(next(source))
        later_half = end - (end - begin) // 2 if number > 2 else begin
        for start in (begin, later_half):  # the growth may have stopped within the window
            if samples[end] - samples[start] < least * (end - start):
                return False
        if number > 1 and number < windows and is_over():
            return True if number > 2 else None
        begin, end = end, 2 * end
    return True
