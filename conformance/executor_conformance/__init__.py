"""A conformance suite for task executors.

Run it with ``pytest --executor=module:Class``.  Nothing is imported here on purpose: the suite's probes
(:mod:`executor_conformance.probes`) live in this package, and a new interpreter that starts one must not pay
for anything else.
"""
