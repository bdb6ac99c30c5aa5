"""The methods and attributes of an executor, and the form of commands and events.

A scheduler knows an executor by its methods.  These rules check that the methods exist, that commands reach
the task unchanged, that events have the agreed form, and that the executor's attributes are accurate.  The
chapters that follow check whether the executor does its work correctly.
"""
