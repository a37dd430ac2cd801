"""Wiring only: Dagster definitions, the local services and the command line."""
