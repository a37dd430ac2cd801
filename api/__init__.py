"""The HTTP API: recommendations with their evidence, rankings and models, read from the catalog and the marts."""
