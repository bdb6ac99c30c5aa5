"""How fast executors start tasks: the reference and its peers, interleaved in one run."""
