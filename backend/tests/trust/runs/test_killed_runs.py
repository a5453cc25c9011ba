"""G3: a run ends as if nothing had happened, whenever kill -9 hits its process; what is done is done once."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from time import monotonic
from uuid import uuid4

import pytest

from tests.trust.runs.agents import STEPS, order_graph, published
from tests.trust.runs.effects import Effects, Step, effects
from tests.trust.runs.elsewhere import elsewhere
from tests.trust.runs.orders import MODES, Order
from tests.trust.runs.rows import completed_steps, run_row, until
from tests.trust.runs.streams import check_whole, opened, read
from tests.trust.serving import Platform

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

AMOUNTS = (10, 1000)
LEASE_S = 3.0


@pytest.fixture
def service(lots: random.Random) -> Iterator[Effects]:
    with elsewhere(effects(lots)) as service:
        yield service


@dataclass(slots=True)
class Havoc:
    """Kills the process over and over while orders are in work, and watches what is done for them."""

    process: Platform
    service: Effects
    settled: dict[Step, int] = field(default_factory=dict)
    hit: set[str] = field(default_factory=set)
    kills: int = 0

    async def kill_amid(self, orders: Sequence[Order], moment_s: float, *, placed: bool) -> None:
        """Kills the process `moment_s` after the orders are placed, or after that began; starts it again."""
        placing = [
            asyncio.create_task(order.place_anyhow(self.process.url)) for order in orders if not order.run_id
        ]
        if placed:
            await asyncio.gather(*placing)
        await asyncio.sleep(moment_s)
        self.process.kill()
        self.kills += 1
        await asyncio.gather(*placing)
        for order in orders:
            if order.run_id:
                await self._note(order)
        await asyncio.to_thread(self.process.start)

    async def _note(self, order: Order) -> None:
        """Whether it was killed, and how often each step was called that the journal says is done."""
        (finished_at,) = await run_row(self.process, order.run_id, "finished_at")
        if finished_at is None:
            self.hit.add(order.id)
        for step in await completed_steps(self.process, order.run_id):
            self.settled.setdefault((order.id, step), self.service.count((order.id, step)))

    async def ended(self, orders: Sequence[Order]) -> None:
        """Places what was lost on the way, and waits for the end of all."""
        for order in orders:
            await order.place(self.process.url)

        async def over() -> bool:
            rows = [await run_row(self.process, order.run_id, "finished_at") for order in orders]
            return all(finished_at for (finished_at,) in rows)

        await until(over, within_s=120, every_s=0.1)

    def check_effects(self, order: Order) -> None:
        """Nothing was done twice, nothing again that was journalled, nothing that was not to be done."""
        chosen = "large" if order.input["amount"] > 100 else "small"
        assert sorted(self.service.effects(order.id)) == sorted([*STEPS, chosen])
        again = {step: self.service.count(step) for step in self.settled if step[0] == order.id}
        assert again == {step: self.settled[step] for step in again}
        most = max(self.service.count((order.id, step)) for step in [*STEPS, chosen])
        assert most <= 1 + self.kills


async def check_run(
    process: Platform, order: Order, expected: dict[int, str], *, told: dict[str, str]
) -> None:
    """The end is that of an undisturbed run, and the log has no gap and one end."""
    status, output, error = await run_row(process, order.run_id, "status", "output", "error")
    assert (status, error) == ("succeeded", None)
    assert json.loads(output) == {"receipt": expected[order.input["amount"]]}, told
    check_whole(await read(process.url, order.run_id))


@dataclass(slots=True)
class Undisturbed:
    """Receipts by amount, and how long one run took at most."""

    receipts: dict[int, str]
    duration_s: float


async def undisturbed(process: Platform, agent: str) -> Undisturbed:
    receipts, longest = {}, 0.0
    for amount in AMOUNTS:
        began = monotonic()
        body = {"input": {"order": uuid4().hex, "amount": amount}, "mode": "wait"}
        async with opened(process.url, f"/agents/{agent}/runs", body=body) as answer:
            run = json.loads(await answer.text())
        assert run["status"] == "succeeded", run
        receipts[amount], longest = run["output"]["receipt"], max(longest, monotonic() - began)
    return Undisturbed(receipts, longest)


@pytest.mark.parametrize(
    ("runs", "at_once", "again", "hits"),
    [
        pytest.param(4, 4, 1, 1, id="four"),
        pytest.param(50, 5, 0.4, 25, id="fifty", marks=[pytest.mark.soak, pytest.mark.timeout(1800)]),
    ],
)
async def test_killed_at_a_random_moment(
    alone: Platform, service: Effects, lots: random.Random, runs: int, at_once: int, again: float, hits: int
) -> None:
    """`again` is how likely the process is killed once more, at any moment until all has recovered.

    `hits` runs have to be under way at a kill: of few, some may have ended before.
    """
    with alone.client() as client:
        agent = published(client, f"orders-{uuid4().hex[:8]}", order_graph(service.url))
    usual = await undisturbed(alone, agent)
    orders = [Order(agent, {"amount": lots.choice(AMOUNTS)}, lots.choice(MODES)) for _ in range(runs)]
    hit = set[str]()
    for first in range(0, runs, at_once):
        havoc, batch = Havoc(alone, service), orders[first : first + at_once]
        moment_s = lots.uniform(0, usual.duration_s)
        await havoc.kill_amid(batch, moment_s, placed=lots.random() < 0.8)
        if lots.random() < again:
            await havoc.kill_amid(batch, lots.uniform(0, usual.duration_s + LEASE_S), placed=False)
        await havoc.ended(batch)
        for order in batch:
            havoc.check_effects(order)
            await check_run(alone, order, usual.receipts, told=service.told(order.id))
        hit |= havoc.hit
    assert len(hit) >= hits, f"only {len(hit)} of {runs} runs were killed"
