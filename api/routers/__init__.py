"""Routers, one file a resource."""
