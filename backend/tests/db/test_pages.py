"""Walking through the pages of a list while others change it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from app.core.ids import new_id
from app.core.paging import PageRequest
from app.db.postgres.models.agents import Agent
from app.db.postgres.repositories.agents import Agents
from app.db.session import Tenant
from tests.factories import Factory
from tests.fixtures import Running

DAY = datetime(2026, 1, 1, tzinfo=UTC)
ROW = st.tuples(st.sampled_from(["a", "B", "b", "é", "ab", "a b", "", "\U0001f331"]), st.integers(0, 3))
CHANGE = st.tuples(st.lists(ROW, max_size=3), st.lists(st.integers(0, 50), max_size=3))
Key = tuple[Any, Any]


def agent(tenant: Tenant, row: tuple[str, int]) -> Agent:
    name, microseconds = row
    return Agent(
        org_id=tenant.org_id,
        id=new_id(),
        project_id=tenant.project,
        slug=f"agent-{new_id().hex}",
        name=name,
        draft={},
        created_at=DAY + timedelta(microseconds=microseconds),
    )


class Shelf:
    """The agents of a project, of which some come and go."""

    def __init__(self, server: Running, tenant: Tenant) -> None:
        self.database = server.resources.database
        self.tenant = tenant

    async def change(self, new: list[tuple[str, int]], gone: list[int]) -> None:
        """Adds rows, and deletes those with these numbers."""
        async with self.database.unit_of_work(self.tenant) as session:
            agents = Agents(session, self.tenant)
            there = await agents.many(agents.visible().order_by(Agent.id))
            for index in {number % len(there) for number in gone} if there else ():
                await session.delete(there[index])
            await agents.add_all([agent(self.tenant, row) for row in new])

    async def all(self, sort: str) -> list[Agent]:
        """In the order that PostgreSQL itself gives them."""
        key = Agents.sorts[sort.removeprefix("-")]
        async with self.database.unit_of_work(self.tenant) as session:
            agents = Agents(session, self.tenant)
            down = sort.startswith("-")
            order = [column.desc() if down else column.asc() for column in (key, Agent.id)]
            return await agents.many(agents.visible().order_by(*order))

    async def page(self, request: PageRequest) -> tuple[list[Agent], str | None]:
        async with self.database.unit_of_work(self.tenant) as session:
            found = await Agents(session, self.tenant).page(request)
            return found.items, found.next_cursor


class TestWalk:
    @examples(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        rows=st.lists(ROW, max_size=12),
        changes=st.lists(CHANGE, max_size=6),
        limit=st.integers(1, 4),
        sort=st.sampled_from(["created_at", "-created_at", "name", "-name"]),
    )
    async def test_shows_what_stays_exactly_once_in_order(
        self,
        server: Running,
        make: Factory,
        rows: list[tuple[str, int]],
        changes: list[tuple[list[tuple[str, int]], list[int]]],
        limit: int,
        sort: str,
    ) -> None:
        shelf = Shelf(server, (await make.member()).tenant)
        await shelf.change(rows, [])
        before = await shelf.all(sort)
        seen: list[Agent] = []
        cursor: str | None = None
        while True:
            items, cursor = await shelf.page(PageRequest(limit=limit, cursor=cursor, sort=sort))
            seen += items
            if cursor is None:
                break
            assert len(items) == limit
            if changes:
                await shelf.change(*changes.pop())
        after = await shelf.all(sort)
        ids = [row.id for row in seen]
        stayed = {row.id for row in before} & {row.id for row in after}
        assert len(ids) == len(set(ids))
        assert stayed <= set(ids)
        assert [i for i in ids if i in stayed] == [row.id for row in after if row.id in stayed]
        self._in_order(seen, sort)

    def _in_order(self, seen: list[Agent], sort: str) -> None:
        """As far as Python sorts like PostgreSQL: the time, and the id where the key is equal."""
        if sort.removeprefix("-") == "created_at":
            keys: list[Key] = [(row.created_at, row.id) for row in seen]
            assert keys == sorted(keys, reverse=sort.startswith("-"))
