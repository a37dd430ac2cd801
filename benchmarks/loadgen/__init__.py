"""Dyno's load generator beside those of others, against one server that knows the truth."""
