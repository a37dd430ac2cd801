"""How Alembic runs our migrations: on the connection that `assets.catalog.migrate` opened and locked."""

from __future__ import annotations

from alembic import context

from assets.catalog.migrate import include_name, include_object
from assets.catalog.tables import SCHEMA, Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table_schema=SCHEMA,
    include_schemas=True,
    include_name=include_name,
    include_object=include_object,
)
with context.begin_transaction():
    context.run_migrations()
