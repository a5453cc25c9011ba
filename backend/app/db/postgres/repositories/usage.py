"""What the runs of a project used: tokens, and what they cost as far as that is known."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.session import Tenant

MOST_GROUPS = 1000


class GroupBy(StrEnum):
    """An agent is told by its slug, a day (UTC) by its date, a model as usage names it."""

    AGENT = "agent"
    MODEL = "model"
    DAY = "day"


_KEYS = {
    GroupBy.AGENT: "a.slug",
    GroupBy.MODEL: "m.model",
    GroupBy.DAY: "to_char(r.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
}
_USAGE = """
    WITH calls AS MATERIALIZED (
        SELECT r.id, {key} AS key, m.used FROM agent_runs r
        JOIN agents a ON a.org_id = r.org_id AND a.id = r.agent_id AND a.deleted_at IS NULL
        LEFT JOIN LATERAL jsonb_each(r.usage -> 'by_model') AS m(model, used) ON true
        WHERE r.org_id = :org AND r.project_id = :project AND r.created_at >= :since AND r.created_at < :until
            AND r.made_by IS DISTINCT FROM 'replay'
    ), tokens AS (
        SELECT key, grouping(key) AS whole, count(DISTINCT id) AS runs,
            COALESCE(sum((used ->> 'input_tokens')::bigint), 0)::bigint AS input_tokens,
            COALESCE(sum((used ->> 'output_tokens')::bigint), 0)::bigint AS output_tokens,
            COALESCE(sum((used ->> 'input_tokens')::bigint + (used ->> 'output_tokens')::bigint)
                FILTER (WHERE used -> 'cost' IS NULL), 0)::bigint AS unpriced_tokens
        FROM calls GROUP BY GROUPING SETS ((key), ())
    ), costs AS (
        SELECT key, whole, jsonb_object_agg(currency, trim_scale(amount)::text)::text AS cost FROM (
            SELECT key, grouping(key) AS whole, c.currency, sum(c.amount::numeric) AS amount
            FROM calls CROSS JOIN LATERAL jsonb_each_text(used -> 'cost') AS c(currency, amount)
            GROUP BY GROUPING SETS ((key, currency), (currency))
        ) AS summed GROUP BY key, whole
    )
    SELECT t.key, t.runs, t.input_tokens, t.output_tokens, t.unpriced_tokens, c.cost FROM tokens t
    LEFT JOIN costs c ON c.whole = t.whole AND c.key IS NOT DISTINCT FROM t.key
    WHERE t.whole = 1 OR t.key IS NOT NULL
    ORDER BY t.whole DESC, {order} LIMIT :most
"""
_ORDERS = {GroupBy.DAY: "t.key DESC"}
_BY_TOKENS = "t.input_tokens + t.output_tokens DESC, t.key"


@dataclass(frozen=True, slots=True)
class Used:
    """`cost` is by currency, in decimal digits, and lacks that of the `unpriced_tokens`."""

    key: str | None
    runs: int
    input_tokens: int
    output_tokens: int
    unpriced_tokens: int
    cost: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ProjectUsage:
    """What one project's runs used, by the time at which they were made; not those of deleted agents."""

    session: AsyncSession
    tenant: Tenant

    async def by(self, group: GroupBy, *, since: datetime, until: datetime) -> tuple[Used, list[Used]]:
        """The whole, and its parts: those of the newest days, or else those with the most tokens."""
        statement = _USAGE.format(key=_KEYS[group], order=_ORDERS.get(group, _BY_TOKENS))
        wanted = {
            **{"org": self.tenant.org_id, "project": self.tenant.project, "most": MOST_GROUPS + 1},
            **{"since": since, "until": until},
        }
        whole, *parts = [_used(*row) for row in await self.session.execute(text(statement), wanted)]
        return whole, parts


def _used(key: str | None, *counts: Any) -> Used:
    runs, input_tokens, output_tokens, unpriced_tokens, cost = counts
    amounts = json.loads(cost) if cost else {}
    return Used(key, runs, input_tokens, output_tokens, unpriced_tokens, amounts)
