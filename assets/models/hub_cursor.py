"""Where a walk through the hub's changes stands: the newest instant seen, and which models were seen at that instant."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class HubCursor:
    """Two models may change within the same instant, so the ids seen at the newest one belong to the cursor."""

    last_modified: datetime
    ids: frozenset[str]

    def is_past(self, instant: datetime | None) -> bool:
        """Whether everything at this instant was seen."""
        return instant is None or instant < self.last_modified

    def is_new(self, hub_id: str, instant: datetime | None) -> bool:
        """Whether this model at this instant was not seen yet."""
        return instant is not None and (instant > self.last_modified or (instant == self.last_modified and hub_id not in self.ids))

    def to_text(self) -> str:
        """The cursor as text, for Dagster to keep."""
        return json.dumps({"last_modified": self.last_modified.isoformat(), "ids": sorted(self.ids)})

    @classmethod
    def from_text(cls, text: str | None) -> HubCursor | None:
        """The cursor of `to_text`; None for None, for an empty text and for one that cannot be read (the walk begins anew)."""
        try:
            document = json.loads(text or "")
            return cls(datetime.fromisoformat(document["last_modified"]).astimezone(UTC), frozenset(document["ids"]))
        except (ValueError, KeyError, TypeError):
            return None

    @classmethod
    def after(cls, cursor: HubCursor | None, seen: Iterable[tuple[str, datetime | None]]) -> HubCursor | None:
        """The cursor that stands behind `cursor` and behind all (hub id, last modified) of `seen`."""
        result = cursor
        for hub_id, instant in seen:
            if instant is None:
                continue
            if result is None or instant > result.last_modified:
                result = cls(instant, frozenset({hub_id}))
            elif instant == result.last_modified:
                result = cls(instant, result.ids | {hub_id})
        return result
