"""Judging: run a rule, turn what happened into a finding, and find which rule is to blame for a failure."""
