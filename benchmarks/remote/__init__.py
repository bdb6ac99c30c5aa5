"""Measures the cost of launching and watching remote jobs on one core."""
