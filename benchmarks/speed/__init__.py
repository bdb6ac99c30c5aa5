"""Measures how fast executors start tasks: the reference and other executors, interleaved in one run."""
