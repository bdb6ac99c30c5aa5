"""Random programs: generates sequences of calls, runs and checks them, and shrinks those that fail."""
