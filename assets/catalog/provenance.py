"""Where numbers come from, one row for each distinct origin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from sqlalchemy import Connection, func
from sqlalchemy.dialects.postgresql import insert

from assets.catalog import tables
from assets.matrix.spec import content_id


@dataclass(frozen=True, slots=True)
class Origin:
    """The tool that made a number, the file it stands in (with its SHA-256 where there is a file), and the machine."""

    tool: str
    tool_version: str
    source_uri: str
    file_sha256: str | None = None
    licence: str | None = None
    host: Mapping[str, object] = field(default_factory=dict)

    @property
    def provenance_id(self) -> str:
        """Content hash: the same origin is the same row."""
        return content_id({**asdict(self), "host": dict(self.host)})


def record(connection: Connection, origin: Origin) -> str:
    """Store the origin unless it is there; returns its id."""
    statement = insert(tables.Provenance).values(
        provenance_id=origin.provenance_id,
        tool=origin.tool,
        tool_version=origin.tool_version,
        source_uri=origin.source_uri,
        file_sha256=origin.file_sha256,
        licence=origin.licence,
        host=dict(origin.host),
        recorded_at=func.clock_timestamp(),
    )
    connection.execute(statement.on_conflict_do_nothing())
    return origin.provenance_id
