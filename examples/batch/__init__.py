"""Launches and watches AWS Batch jobs with an async executor."""
