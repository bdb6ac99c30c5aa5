"""Tells a leak from a step and from what fills up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

_FIRST_WINDOW = 3


def goes_on(
    samples: list[int],
    more: Iterable[int],
    *,
    least: float,
    windows: int,
    is_over: Callable[[], bool] = lambda: False,
) -> bool | None:
    """Whether a measure still grows at the end of several windows, of which each is as long as all before.

    A step, such as a module that is imported late, is in one window only; what has a bound is full at some
    time; a leak, also one in lumps, is in all of them.

    :param samples: at rest, one at least; those that are taken are appended.
    :param more: the next samples, taken as they are needed.
    :param least: growth from one sample to the next that counts, in the mean of a window, and of the later
        half of a long one.
    :param windows: how many have to grow, of 3, 3, 6, 12 ... samples.
    :param is_over: there is no time for another window; two at least are looked at, and a leak is told after
        three.
    :returns: ``None`` if there was no time to tell.
    """
    source: Iterator[int] = iter(more)
    begin, end = 0, _FIRST_WINDOW
    for number in range(1, windows + 1):
        while len(samples) <= end:
            samples.append(next(source))
        later_half = end - (end - begin) // 2 if number > 2 else begin
        for start in (begin, later_half):  # it may have come to its end within the window
            if samples[end] - samples[start] < least * (end - start):
                return False
        if number > 1 and number < windows and is_over():
            return True if number > 2 else None
        begin, end = end, 2 * end
    return True
