"""How long a task waits for its first instruction while a slot is free.

Queued time runs from the call of ``execute_async()`` to the first instruction of the task, on one monotonic
clock.  The budget depends on how the task was started: 0.1 s with a fork and 1.5 s with a new interpreter, or
25 times what either costs on this machine, whichever is more.  The suite recognises a fork by a mark in the
memory of the task.

Wald's sequential probability ratio test decides whether a median is within its budget: the suite takes
samples until the error rate is 1 in 10,000 (1 in 400 where each task takes seconds).  A median above its
budget is measured again, with a larger budget if the machine has become slower since its calibration.  The
fixed budgets grow to at most twice their value; those that are multiples of the machine's own costs grow as
much as the machine has slowed down.
"""
