"""Adapters: each drives one family of executors in the suite's terms."""
