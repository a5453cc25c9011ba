"""`docs/approvals.md` from the first request to the last, against a real server, a model and a shop."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from app.core.config import Settings
from app.core.constants import DEFAULT_CHAT_MODEL
from app.core.egress import Rule
from tests.api.calls import API, ended, ok
from tests.chat_completions import Calls
from tests.core.peers import Peer, peer
from tests.fixtures import Running, claims_alone, running_server
from tests.openai_compatible_double import Double, double, says

PAGE = (Path(__file__).parents[3] / "docs" / "approvals.md").read_text()
STEPS = re.findall(
    r"^`(GET|POST) (\S+)`\n(?:```json\n(.*?)\n```\n)?(?:```json answer\n(.*?)\n```)?",
    PAGE,
    re.DOTALL | re.MULTILINE,
)


@pytest_asyncio.fixture
async def model() -> AsyncIterator[Double]:
    async with double() as made:
        yield made


@pytest_asyncio.fixture
async def shop() -> AsyncIterator[Peer]:
    async with peer() as made:
        yield made


@pytest_asyncio.fixture
async def server(settings: Settings, model: Double, shop: Peer) -> AsyncIterator[Running]:
    opened = (Rule.parse(f"127.0.0.1:{model.port}"), Rule.parse(shop.authority))
    async with running_server(settings.model_copy(update={"egress_allow": opened})) as running:
        yield running


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, server: Running) -> None:
    claims_alone(monkeypatch, server)


def refund(amount: int) -> list[Calls]:
    return [Calls("call_1", "refund", ['{"order": "A-7", ', f'"amount": {amount}}}'])]


def holds(said: Any, found: Any) -> bool:
    """Whether what the page says is there; it need not say everything."""
    if isinstance(said, dict):
        return isinstance(found, dict) and all(
            key in found and holds(part, found[key]) for key, part in said.items()
        )
    if isinstance(said, list):
        return len(said) == len(found) and all(map(holds, said, found))
    return bool(said == found)


@pytest.mark.usefixtures("alone")
async def test_goes_as_the_page_says(client: httpx2.AsyncClient, model: Double, shop: Peer) -> None:
    body = {"slug": "double", "base_url": model.base_url, "api_key": "sk-test"}
    connection = ok(await client.post(f"{API}/model-connections", json=body), 201)
    body = {"slug": DEFAULT_CHAT_MODEL, "model": "double-1", "connection": connection["id"]}
    ok(await client.post(f"{API}/models", json=body), 201)
    model.next(
        says(calls=refund(30)), says("You get 25 euros back."),
        says(calls=refund(3000)), says("I cannot do that."),
    )  # fmt: skip
    places = {"https://shop.example/": shop.url}
    for method, path, given, answer in STEPS:
        for name, value in places.items():
            path, given = path.replace(name, value), given.replace(name, value)
        if method == "GET" and path.count("/") == 4:
            await ended(client, places["{run}"])
        response = await client.request(method, path, json=json.loads(given) if given else None)
        assert response.is_success, response.text
        found = response.json()
        assert holds(json.loads(answer or "{}"), found), found
        if path.endswith("/runs"):
            (question,) = ok(await client.get(f"{API}/runs/{found['id']}/interrupts?status=open"))["items"]
            places |= {"{run}": found["id"], "{interrupt}": question["id"]}
    assert [json.loads(request.body) for request in shop.requests] == [{"order": "A-7", "amount": 25}]


def test_every_request_of_the_page_is_one_of_the_steps() -> None:
    assert len(STEPS) == len(re.findall(r"^`(?:GET|POST) ", PAGE, re.MULTILINE))
    assert all(answer or given for _, _, given, answer in STEPS)
