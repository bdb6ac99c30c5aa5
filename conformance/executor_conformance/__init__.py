"""A conformance suite for task executors.

Run it with ``pytest --executor=module:Class``.  Nothing is imported here on purpose: the suite's probe
(:mod:`executor_conformance.probe`) lives in this package, and a new interpreter that starts it must not
pay for anything else.
"""
