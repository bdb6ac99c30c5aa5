"""What is reported for a task, when, and how often.

Every accepted task has exactly one terminal event, ``success`` or ``failed``, under the key that it was
submitted with, and that event matches what happened.  The tasks of the suite record what really ran and when,
and the events of the executor are compared with these records.
"""
