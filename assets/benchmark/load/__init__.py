"""Load generation and its timing."""
