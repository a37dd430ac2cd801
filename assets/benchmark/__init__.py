"""Stage 3: the worker that launches an engine, puts load on it and measures. Runs in a GPU pod: imports no dagster, no database."""
