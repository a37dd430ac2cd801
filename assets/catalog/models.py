"""Models and model versions in the catalog."""

from __future__ import annotations


