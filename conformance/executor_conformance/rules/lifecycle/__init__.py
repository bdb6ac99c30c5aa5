"""What each call of an executor may and may not do, from the constructor to the end.

A scheduler constructs an executor, starts it, submits tasks, calls ``heartbeat()`` in a loop, and ends it.
Schedulers also crash halfway, call ``start()`` again after a reload, and end executors that they never
started.  The host process belongs to the scheduler, so an executor leaves it as it was before the start.
"""
