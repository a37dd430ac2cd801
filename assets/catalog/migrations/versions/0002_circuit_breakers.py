"""Circuit breakers: one for each engine on each hardware config (`assets/benchmark/breaker.py`).

Revision: 0002.
"""

from __future__ import annotations

from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: None = None
depends_on: None = None

TABLE = """
CREATE TABLE catalog.circuit_breakers (
    framework text NOT NULL,
    hardware_id text NOT NULL,
    failures bigint NOT NULL,
    opened_at timestamptz,
    trials jsonb NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT pk_circuit_breakers PRIMARY KEY (framework, hardware_id)
)
"""


def upgrade() -> None:
    op.execute(TABLE)


def downgrade() -> None:
    op.execute("DROP TABLE catalog.circuit_breakers")
