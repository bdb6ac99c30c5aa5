"""How a rule is run: contained, timed by calibrated budgets, judged by what probes recorded."""
