"""What can go wrong in the catalog, in words for people."""

from __future__ import annotations

from assets.benchmark.store import RejectedMeasurementError


class CatalogError(RuntimeError):
    """Base of the catalog's errors; the message says what is wrong and what to do."""


class CatalogUnavailableError(CatalogError):
    """The database cannot be reached, or refuses us."""


class MigrationError(CatalogError):
    """The tables cannot be brought to this version of Dyno."""


class UnknownModelError(CatalogError, LookupError):
    """The model is not registered."""


class UnknownHardwareError(CatalogError, LookupError):
    """A configuration names hardware that the reference data lacks."""


class UnknownConfigurationError(CatalogError, RejectedMeasurementError, LookupError):
    """A measurement of a configuration that is not in the matrix."""


class InvalidMeasurementError(CatalogError, RejectedMeasurementError, ValueError):
    """A measurement that contradicts itself or what is stored."""
