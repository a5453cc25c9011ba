"""Months of run logs are dropped, and it is known which."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from app.db.walls import APP, SYSTEM, system_wall

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

LOGS = "'agent_run_events', 'agent_run_steps', 'agent_run_checkpoints', 'agent_run_checkpoint_writes'"
MONTHS = f"""
CREATE FUNCTION orrery_logged_months() RETURNS SETOF date
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE
    parent text;
BEGIN
    FOREACH parent IN ARRAY ARRAY[{LOGS}] LOOP
        RETURN QUERY SELECT to_date(right(c.relname, 6), 'YYYYMM')
            FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
            WHERE i.inhparent = to_regclass('public.' || parent) AND c.relname ~ '_[0-9]{{6}}$';
        RETURN QUERY EXECUTE format(
            'SELECT DISTINCT date_trunc(''month'', to_timestamp(
                (''x'' || left(replace(run_id::text, ''-'', ''''), 12))::bit(48)::bigint / 1000.0
            ) AT TIME ZONE ''UTC'')::date FROM public.%I', parent || '_default');
    END LOOP;
END $$
"""
# What lies in the default partition goes by and by, `most` rows at a time, which are counted. A statement
# that waits for a lock keeps all later ones waiting behind it, so that it may not do so for long.
DROP = f"""
CREATE FUNCTION orrery_drop_log(parent text, month date, most integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public SET lock_timeout = '1s' AS $$
DECLARE
    low uuid := orrery_uuid7_floor(month::timestamp);
    high uuid := orrery_uuid7_floor(month::timestamp + interval '1 month');
    dropped integer;
BEGIN
    IF parent <> ALL (ARRAY[{LOGS}]) THEN
        RAISE EXCEPTION '% is no log of runs', parent;
    END IF;
    IF month <> date_trunc('month', month) OR
        month + interval '1 month' > (now() AT TIME ZONE 'UTC') - interval '1 day' THEN
        RAISE EXCEPTION '% is not the first day of a month that is over', month;
    END IF;
    EXECUTE format('DROP TABLE IF EXISTS public.%I', parent || '_' || to_char(month, 'YYYYMM'));
    EXECUTE format('DELETE FROM public.%1$I WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM public.%1$I WHERE run_id >= $1 AND run_id < $2 LIMIT $3))', parent || '_default')
        USING low, high, most;
    GET DIAGNOSTICS dropped = ROW_COUNT;
    RETURN dropped;
END $$
"""


def upgrade() -> None:
    op.create_table(
        "dropped_run_logs",
        sa.Column("month", sa.Date(), nullable=False),
        sa.Column(
            "dropped_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("month", name="pk_dropped_run_logs"),
    )
    for statement in (
        *system_wall("dropped_run_logs", "SELECT, INSERT"),
        MONTHS,
        DROP,
        *_for_the_system("orrery_logged_months()"),
        *_for_the_system("orrery_drop_log(text, date, integer)"),
    ):
        op.execute(statement)


def _for_the_system(function: str) -> list[str]:
    return [
        f"REVOKE ALL ON FUNCTION {function} FROM PUBLIC, {APP}",
        f"GRANT EXECUTE ON FUNCTION {function} TO {SYSTEM}",
    ]


def downgrade() -> None:
    op.execute("DROP FUNCTION orrery_drop_log(text, date, integer)")
    op.execute("DROP FUNCTION orrery_logged_months()")
    op.drop_table("dropped_run_logs")
