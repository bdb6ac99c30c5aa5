"""How many tasks run at the same time, and in which order they start.

With parallelism N, never more than N tasks run at the same time, and never fewer while tasks are queued.
Values that are not a valid parallelism are rejected.  The suite's tasks wait until a rule releases them, so
the counts do not depend on timing.
"""
