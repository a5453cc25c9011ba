"""Alembic's environment: migrations run on the connection that `app.db.migrate` opened."""

from alembic import context

import app.db.postgres.models  # noqa: F401  (fills the metadata)
from app.db.base import Base

PARTITIONS = (
    *("vector_", "agent_run_events_", "agent_run_steps_", "agent_run_checkpoints_"),
    "agent_run_checkpoint_writes_",
)
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transaction_per_migration=True,
    compare_type=True,
    include_name=lambda name, kind, _parents: kind != "table" or not (name or "").startswith(PARTITIONS),
)
with context.begin_transaction():
    context.run_migrations()
