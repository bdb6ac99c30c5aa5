"""What runs in the executor under test: the suite's own tasks, and how they report.

Nothing is imported here on purpose: a new interpreter that starts a probe must not pay for anything else.
"""
