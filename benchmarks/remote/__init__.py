"""What it costs to launch and to watch remote jobs on one core."""
