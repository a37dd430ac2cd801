"""Small Llama-architecture models that Dyno builds itself, so that everything runs without the hub."""
