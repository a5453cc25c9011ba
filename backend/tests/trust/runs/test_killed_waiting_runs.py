"""G3 and G4 for runs that wait, repeat and run side by side: killed at any moment, they end as worked out."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import uuid4

import pytest

from tests.trust.orphans import fetch
from tests.trust.runs.clerks import Office
from tests.trust.runs.effects import Effects, effects
from tests.trust.runs.elsewhere import elsewhere
from tests.trust.runs.orders import MODES, Order
from tests.trust.runs.rows import run_row, until
from tests.trust.runs.shipments import Given, Undisturbed, drawn, ship
from tests.trust.runs.streams import check_whole, event_of, path_of, read
from tests.trust.serving import Platform

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

_LONGEST_CALM_S = 0.8
_OPEN = ("running", "interrupted", "waiting")
_RETRIED = "deliver/"
"""What is inside of the node that fails at first, and so begins twice."""
_OPEN_STEPS = """
    SELECT node_path, visit, status FROM agent_run_steps
    WHERE run_id = $1::text::uuid AND status NOT IN ('succeeded', 'failed', 'skipped')"""
_INTERRUPTS = """
    SELECT id::text, node_path, kind, status, choice, data::text FROM agent_run_interrupts
    WHERE run_id = $1::text::uuid"""
_OPEN_RUNS = """
    SELECT id::text, status, recoveries, answers, due_at::text, lease_until::text FROM agent_runs
    WHERE id = ANY($1::text[]::uuid[]) AND finished_at IS NULL"""
_STATES = "SELECT id::text, status FROM agent_runs WHERE id = ANY($1::text[]::uuid[])"


@dataclass(frozen=True, slots=True)
class Size:
    """How many runs there are, how many at once, how often processes are killed over these, and how many runs
    that has to hit: of few, some may have ended before.
    """

    runs: int
    at_once: int
    kills: int
    hits: int


SIZES = [
    pytest.param(Size(5, 5, 2, 1), id="five"),
    pytest.param(
        Size(300, 20, 6, 150), id="three-hundred", marks=[pytest.mark.soak, pytest.mark.timeout(3000)]
    ),
]


@pytest.fixture
def service(lots: random.Random) -> Iterator[Effects]:
    with elsewhere(effects(lots)) as service:
        yield service


@dataclass(slots=True)
class Havoc:
    """Kills one of the processes or both, over and over: after some run executes, after one waits for a
    person, after one waits for a time, and so on. `hit`: the runs that had not ended at such a moment.
    """

    processes: Sequence[Platform]
    orders: Sequence[Order]
    lots: random.Random
    hit: set[str] = field(default_factory=set)

    async def wreak(self, kills: int) -> None:
        for number in range(kills):
            placing = [asyncio.create_task(self._place(order)) for order in self.orders if not order.run_id]
            await until(partial(self._some_are, _OPEN[number % len(_OPEN)]), every_s=0.1)
            await asyncio.sleep(self.lots.uniform(0, _LONGEST_CALM_S))
            self.hit |= {one for one, state in (await self._states()).items() if state in _OPEN}
            victims = self.lots.sample(self.processes, self.lots.choice((1, 1, 2)))
            for victim in victims:
                victim.kill()
            await asyncio.gather(*placing, *(asyncio.to_thread(victim.start) for victim in victims))

    async def _place(self, order: Order) -> None:
        await order.place_anyhow(self.lots.choice(self.processes).url)

    async def _some_are(self, state: str) -> bool:
        """Or none can be any more."""
        states = await self._states()
        found = set(states.values())
        return state in found or (len(states) == len(self.orders) and found.isdisjoint(_OPEN))

    async def _states(self) -> dict[str, str]:
        ids = [order.run_id for order in self.orders if order.run_id]
        return {one: state for one, state in await fetch(self.processes[0], _STATES, ids)}


async def all_over(process: Platform, orders: Sequence[Order]) -> None:
    ids = [order.run_id for order in orders]

    async def over() -> bool:
        return not await fetch(process, _OPEN_RUNS, ids)

    try:
        await until(over, within_s=120, every_s=0.2)
    except TimeoutError:
        raise AssertionError(f"these did not end: {await fetch(process, _OPEN_RUNS, ids)}") from None


async def answers_of(process: Platform, order: Order, office: Office) -> dict[str, Given]:
    """What was answered, by node path. Each question is over, and the answer is one that was taken."""
    answers = {}
    for one, path, kind, status, choice, data in await fetch(process, _INTERRUPTS, order.run_id):
        taken = office.taken.get(one, [])
        if kind == "timer":
            assert status == "expired" or path.startswith(_RETRIED), (path, status)
        elif status == "answered":
            answers[path] = given = Given(choice, json.loads(data)["amount"])
            assert taken == [given] or (not taken and one in office.unheard), path
        else:
            assert (path, status, taken) == ("quick", "expired", [])
    return answers


def check_told(frames: list[bytes]) -> None:
    """Each node ends once. It begins once, and once more for each time that it was under way at a kill."""
    check_whole(frames)
    told: Counter[tuple[str, str]] = Counter()
    for frame in frames:
        told[path_of(frame), str(event_of(frame).get("name"))] += 1
    deaths = told["", "run.continued"]
    for (path, name), times in told.items():
        twice = path.startswith(_RETRIED)
        match name:
            case "node.finished":
                assert times <= 1 + twice, (path, times)
            case "node.started":
                assert times <= 1 + twice + deaths, (path, times)
            case "interrupt":
                assert times == 1, (path, times)


async def check(process: Platform, order: Order, service: Effects, office: Office) -> None:
    """The run ended as if nothing had happened; nothing was left out, done twice or left over."""
    columns = "status", "error", "output", "lease_owner", "lease_until", "due_at"
    status, error, output, *left = await run_row(process, order.run_id, *columns)
    assert status == "succeeded", error
    assert (error, left) == (None, [None] * 3)
    answers = await answers_of(process, order, office)
    expected = Undisturbed(service.url, order.id, order.input, answers)
    wanted = expected.output()
    assert service.told(order.id) == expected.bodies
    assert sorted(service.effects(order.id)) == sorted(expected.bodies)
    assert json.loads(output) == wanted
    keys = service.keys(order.id)
    assert set(keys) == {*expected.bodies, *expected.refused}
    assert {step: len(found) for step, found in keys.items()} == dict.fromkeys(keys, 1)
    steps: list[Any] = await fetch(process, _OPEN_STEPS, order.run_id)
    assert [step for step in steps if not (step[0].startswith(_RETRIED) and step[1] == 1)] == []
    check_told(await read(process.url, order.run_id))


@pytest.mark.parametrize("size", SIZES)
async def test_killed_at_random_moments(
    api: Platform, other: Platform, service: Effects, lots: random.Random, size: Size
) -> None:
    processes = (api, other)
    with api.client() as client:
        agent = ship(client, service.url, f"ship-{uuid4().hex[:8]}")
    orders = [Order(agent, drawn(lots), lots.choice(MODES)) for _ in range(size.runs)]
    hit = set[str]()
    for first in range(0, size.runs, size.at_once):
        batch = orders[first : first + size.at_once]
        office, havoc = Office(agent, processes, lots), Havoc(processes, batch, lots)
        clerks = asyncio.create_task(office.work())
        await havoc.wreak(size.kills)
        for order in batch:
            await order.place(api.url)
        await all_over(api, batch)
        office.closed = True
        await clerks
        for order in batch:
            await check(api, order, service, office)
        hit |= havoc.hit
    assert len(hit) >= size.hits, f"only {len(hit)} of {size.runs} runs were killed"
