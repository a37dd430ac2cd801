"""Reference data into the catalog: hardware, prices, engines and use cases, as `assets/matrix/data` has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, time
from typing import Any

from sqlalchemy import Connection

from assets.catalog.tables import HardwareConfig, HardwarePrice, InferenceFramework, UseCase, table_of
from assets.catalog.upsert import upsert
from assets.matrix import dimensions, spec


@dataclass(frozen=True, slots=True)
class ReferenceChanges:
    """How many rows were new or changed."""

    hardware_configs: int
    hardware_prices: int
    inference_frameworks: int
    use_cases: int


def load(
    connection: Connection,
    hardware: Iterable[spec.HardwareConfig],
    prices: Iterable[dimensions.Price],
    frameworks: Iterable[dimensions.Framework],
    use_cases: Iterable[dimensions.UseCase],
) -> ReferenceChanges:
    """Upsert all four. Rows that the data no longer has stay: measurements refer to them, and a price is a fact of its day."""
    return ReferenceChanges(
        upsert(connection, table_of(HardwareConfig), [asdict(config) for config in hardware]),
        upsert(connection, table_of(HardwarePrice), [_price(price) for price in prices]),
        upsert(connection, table_of(InferenceFramework), [_framework(framework) for framework in frameworks]),
        upsert(connection, table_of(UseCase), [_use_case(use_case) for use_case in use_cases]),
    )


def _price(price: dimensions.Price) -> Mapping[str, Any]:
    return {**asdict(price), "as_of": datetime.combine(price.as_of, time(), UTC)}


def _framework(framework: dimensions.Framework) -> Mapping[str, Any]:
    return {
        "framework": framework.framework,
        "version": framework.version,
        "quantizations": list(framework.quantizations),
        "source": framework.source,
    }


def _use_case(use_case: dimensions.UseCase) -> Mapping[str, Any]:
    return {**asdict(use_case), "workloads": list(use_case.workloads)}
