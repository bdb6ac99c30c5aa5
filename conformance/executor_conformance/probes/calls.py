"""Arguments, results and calls for executors that pickle what they send to their workers."""

import pickle

#: Values that a program would take for an exit status, or for a failure.
RETURN_VALUES: "dict[str, object]" = {"1": 1, "False": False, "a string": "text", "[]": [], "None": None}


def same(value: object) -> object:
    """A call that returns its argument."""
    return value


def first(values: "list[object]") -> object:
    """A call that returns the first of its values; with none, it raises StopIteration."""
    return next(iter(values))


def zeros(size: int) -> bytes:
    """A call that returns this many bytes."""
    return bytes(size)


def size_of(value: bytes) -> int:
    """A call that returns how many bytes it was given."""
    return len(value)


class Traceable:
    """Its existence can be observed by a weak reference."""


class Unpicklable:
    """Cannot be pickled."""

    def __reduce__(self) -> "tuple[object, ...]":
        raise pickle.PicklingError("cannot be pickled, on purpose")


class Incomparable:
    """Can be neither compared nor tested for truth, like an array."""

    def __repr__(self) -> str:
        return "Incomparable()"

    def __eq__(self, other: object) -> bool:
        raise TypeError("compared, on purpose")

    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        raise TypeError("tested for truth, on purpose")


class Unloadable:
    """Can be pickled, but not unpickled."""

    def __reduce__(self) -> "tuple[object, ...]":
        return _fail, ()


def _fail() -> object:
    raise pickle.UnpicklingError("cannot be unpickled, on purpose")
