"""Stopping an executor: accepted tasks are finished, workers exit, and nothing is left behind.

``end()`` waits for accepted tasks; ``terminate()`` kills them.  After either call only the event buffer is
left, and the scheduler drains it one last time.
"""
