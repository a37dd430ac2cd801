"""Kubernetes manifests, images, and the check that holds them together."""
