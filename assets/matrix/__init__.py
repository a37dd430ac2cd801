"""Stage 2: the test matrix: every configuration of a model, which of them can run, and why the others cannot."""
