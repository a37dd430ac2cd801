"""The thin REST API over the ranked catalog."""
