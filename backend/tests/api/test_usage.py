"""What calls of models cost, and what that comes to."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from tests.api.calls import API, new_agent, ok, pointers
from tests.api.test_models import answer, called, hosted, register, server
from tests.factories import Factory
from tests.fixtures import Running, http_client
from tests.graphs import asking_graph
from tests.openai_compatible_double import Double, says

__all__ = ["hosted", "server"]
pytestmark = pytest.mark.asyncio(loop_scope="session")

PRICES = {"input_per_million": "0.25", "output_per_million": 2, "currency": "USD"}
TOKENS = (1201, 300)
COST = {"USD": "0.00090025"}


def speaking(double: Double) -> None:
    double.next(says("So it is.", tokens=TOKENS))


class TestCost:
    async def test_of_a_run_is_exact(self, client: httpx2.AsyncClient, hosted: Double) -> None:
        speaking(hosted)
        made = await called(client, hosted, config={"prices": PRICES})
        run = await answer(client, made["slug"])
        (used,) = run["usage"].pop("by_model").values()
        assert run["usage"] == used == {"input_tokens": 1201, "output_tokens": 300, "cost": COST}

    async def test_stands_with_the_step_and_not_in_what_the_node_hands_on(
        self, client: httpx2.AsyncClient, hosted: Double
    ) -> None:
        speaking(hosted)
        made = await called(client, hosted, config={"prices": PRICES})
        run = await answer(client, made["slug"])
        (step,) = ok(await client.get(f"{API}/runs/{run['id']}/steps"))["items"]
        assert step["usage"]["cost"] == COST
        assert step["output"]["usage"] == {"input_tokens": 1201, "output_tokens": 300}

    async def test_that_is_not_known_is_not_shown(self, client: httpx2.AsyncClient, hosted: Double) -> None:
        speaking(hosted)
        run = await answer(client, (await called(client, hosted))["slug"])
        assert "cost" not in str(run["usage"])

    async def test_of_nothing_is_known(self, client: httpx2.AsyncClient, hosted: Double) -> None:
        speaking(hosted)
        free = PRICES | {"input_per_million": 0, "output_per_million": 0}
        run = await answer(client, (await called(client, hosted, config={"prices": free}))["slug"])
        assert run["usage"]["cost"] == {"USD": "0"}

    async def test_goes_by_the_price_that_holds_when_the_call_is_made(
        self, client: httpx2.AsyncClient, hosted: Double
    ) -> None:
        speaking(hosted)
        made = await called(client, hosted, config={"prices": PRICES})
        before = await answer(client, made["slug"])
        change = {"config": {"prices": {"input_per_million": 1, "output_per_million": 0, "currency": "EUR"}}}
        ok(await client.patch(f"{API}/models/{made['id']}", json=change))
        speaking(hosted)
        after = await answer(client, made["slug"])
        before = ok(await client.get(f"{API}/runs/{before['id']}"))
        assert (before["usage"]["cost"], after["usage"]["cost"]) == (COST, {"EUR": "0.001201"})


class TestPrices:
    async def test_change_one_by_one_and_go(self, client: httpx2.AsyncClient) -> None:
        made = await register(client, config={"prices": PRICES})
        path = f"{API}/models/{made['id']}"
        changed = ok(await client.patch(path, json={"config": {"prices": {"output_per_million": "3.5"}}}))
        assert changed["config"]["prices"] == PRICES | {"output_per_million": "3.5"}
        assert ok(await client.patch(path, json={"config": {"prices": None}}))["config"] == {}

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"input_per_million": -1}, "input_per_million"),
            ({"input_per_million": "0.1234567"}, "input_per_million"),
            ({"output_per_million": 1_000_001}, "output_per_million"),
            ({"output_per_million": "NaN"}, "output_per_million"),
            ({"output_per_million": "free"}, "output_per_million"),
            ({"currency": "usd"}, "currency"),
            ({"currency": "DOLLAR"}, "currency"),
            ({"per_image": 1}, "per_image"),
        ],
    )
    async def test_that_are_none_are_refused(
        self, client: httpx2.AsyncClient, change: dict[str, Any], field: str
    ) -> None:
        made = await register(client)
        config = {"prices": PRICES | change}
        body = {"slug": "other", "model": "extractive", "config": config}
        for response in (
            await client.post(f"{API}/models", json=body),
            await client.patch(f"{API}/models/{made['id']}", json={"config": config}),
        ):
            assert pointers(response) == [f"/body/config/prices/{field}"]

    async def test_are_whole_or_none(self, client: httpx2.AsyncClient) -> None:
        made = await register(client)
        change = {"config": {"prices": {"input_per_million": 1}}}
        refused = pointers(await client.patch(f"{API}/models/{made['id']}", json=change))
        assert sorted(refused) == ["/body/config/prices/currency", "/body/config/prices/output_per_million"]


async def usage(client: httpx2.AsyncClient, **query: str) -> dict[str, Any]:
    return dict(ok(await client.get(f"{API}/usage", params=query)))


class TestUsage:
    @pytest_asyncio.fixture(loop_scope="session")
    async def spent(self, client: httpx2.AsyncClient, hosted: Double) -> tuple[str, str]:
        """Two runs of an agent that calls a model with prices, one of another without; the agents."""
        priced = await called(client, hosted, config={"prices": PRICES})
        unpriced = await called(client, hosted)
        agents = [await new_agent(client, asking_graph(one["slug"])) for one in (priced, unpriced)]
        for agent in (agents[0], agents[0], agents[1]):
            speaking(hosted)
            ok(await client.post(f"{API}/agents/{agent}/runs", json={"input": {"name": "Why?"}}))
        return agents[0], agents[1]

    async def test_is_summed_by_agent(self, client: httpx2.AsyncClient, spent: tuple[str, str]) -> None:
        told = await usage(client)
        once = {"input_tokens": 1201, "output_tokens": 300, "unpriced_tokens": 1501, "cost": {}, "runs": 1}
        twice = {"input_tokens": 2402, "output_tokens": 600, "unpriced_tokens": 0, "runs": 2}
        cost = {"cost": {"USD": "0.0018005"}}
        assert told["items"] == [{"key": spent[0]} | twice | cost, {"key": spent[1]} | once]
        whole = {"input_tokens": 3603, "output_tokens": 900, "unpriced_tokens": 1501, "runs": 3}
        assert told["total"] == whole | cost

    async def test_is_summed_by_model(self, client: httpx2.AsyncClient, spent: tuple[str, str]) -> None:
        told = await usage(client, group_by="model")
        assert sorted(item["runs"] for item in told["items"]) == [1, 2]
        assert all(item["key"].endswith("/double-1") for item in told["items"])

    async def test_is_summed_by_day(self, client: httpx2.AsyncClient, spent: tuple[str, str]) -> None:
        told = await usage(client, group_by="day")
        assert sum(item["runs"] for item in told["items"]) == told["total"]["runs"] == 3
        assert f"{datetime.now(UTC):%Y-%m-%d}" in [item["key"] for item in told["items"]]

    async def test_is_that_of_the_times_asked_for(
        self, client: httpx2.AsyncClient, spent: tuple[str, str]
    ) -> None:
        told = await usage(client, **{"from": "2020-01-01T00:00:00Z", "to": "2020-12-31T00:00:00Z"})
        nothing = {"input_tokens": 0, "output_tokens": 0, "unpriced_tokens": 0, "cost": {}, "runs": 0}
        assert (told["items"], told["total"]) == ([], nothing)
        assert (told["from"], told["to"]) == ("2020-01-01T00:00:00Z", "2020-12-31T00:00:00Z")

    async def test_of_another_project_is_none(
        self, server: Running, make: Factory, spent: tuple[str, str]
    ) -> None:
        async with http_client(server, (await make.member()).key) as stranger:
            assert (await usage(stranger))["total"]["runs"] == 0

    @pytest.mark.parametrize("since", ["2020-01-01T00:00:00Z", "2022-01-02T00:00:00Z"])
    async def test_of_no_time_or_too_long_a_one_is_refused(
        self, client: httpx2.AsyncClient, since: str
    ) -> None:
        asked = {"from": since, "to": "2022-01-02T00:00:00Z"}
        assert pointers(await client.get(f"{API}/usage", params=asked)) == ["/query/from"]

    async def test_up_to_the_first_of_times_is_none(self, client: httpx2.AsyncClient) -> None:
        assert (await usage(client, to="0001-01-02T00:00:00Z"))["items"] == []
