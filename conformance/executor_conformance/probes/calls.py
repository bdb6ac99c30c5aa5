"""Arguments, results and calls for executors that pickle what they send to their workers."""

import pickle


class Unpicklable:
    """Cannot be pickled."""

    def __reduce__(self) -> "tuple[object, ...]":
        raise pickle.PicklingError("cannot be pickled, on purpose")


class Unloadable:
    """Can be pickled, but not unpickled."""

    def __reduce__(self) -> "tuple[object, ...]":
        return _fail, ()


def _fail() -> object:
    raise pickle.UnpicklingError("cannot be unpickled, on purpose")
