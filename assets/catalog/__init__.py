"""Stage 4: the tables. The only place that writes SQL from Python."""
