"""Workers die, tasks misbehave, and machines run out of resources.  One such fault costs at most one task.

The suite finds a worker by the tasks that run in it (see ``harness/workers.py``).  It kills workers from
outside, as the kernel does when memory is short.
"""
