"""Which event a journal entry follows, where another run can go on from; and JSON that keeps its order.

What a run computes may depend on the order of an object's keys, which `jsonb` does not keep.

`agent_runs` and every partition of `agent_run_steps` are written anew, under locks that keep everybody else
out until that is done: it takes as long as the journal is large. Who has kept one for years had better drop
the partitions of old months first, or migrate at a quiet time. Where the tables are in use, it waits ten
seconds for each and then fails (`lock timeout`), with nothing changed, rather than stop everybody else behind
it: it may simply be tried again.
"""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _be_impatient()
    op.add_column("agent_run_steps", sa.Column("seq", sa.BigInteger(), nullable=True))
    _change("json")


def downgrade() -> None:
    _be_impatient()
    _change("jsonb")
    op.drop_column("agent_run_steps", "seq")


def _be_impatient() -> None:
    """All that wants a table queues up behind a lock that is waited for."""
    op.execute("SET LOCAL lock_timeout = '10s'")


def _change(kind: str) -> None:
    for table, columns in (("agent_run_steps", ("output", "writes")), ("agent_runs", ("input",))):
        changes = [f"ALTER COLUMN {name} TYPE {kind} USING {name}::{kind}" for name in columns]
        op.execute(f"ALTER TABLE {table} {', '.join(changes)}")
