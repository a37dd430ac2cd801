"""Inference engine drivers, one file an engine."""
