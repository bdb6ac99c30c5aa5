"""Coroutine functions as tasks: thousands of them run on one event loop, or they are rejected.

An executor is async if its ``is_async`` is true.  It accepts coroutine functions if its ``command_kinds``
contains ``"coroutine"``.  The executor chooses their event loop: either the loop that is running when it is
started, which still belongs to the caller, or a loop that it creates, which it has to close.  Any other
executor must leave coroutine functions alone: calling one returns at once and does nothing.
"""
