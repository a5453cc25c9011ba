"""G5: one effect and one answer per `Idempotency-Key`, although the platform is killed meanwhile."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import httpx2
import pytest

from tests.trust.serving import KEY, Platform, eventually

pytestmark = pytest.mark.timeout(300)
COUNT = 40
KILLED_AFTER = 8


async def _create_all(url: str, keys: dict[str, str], *, enough: asyncio.Event) -> dict[str, str]:
    """Sends every create at once; what was answered, by name. Broken connections are left out."""
    answered: dict[str, str] = {}

    async def create(client: httpx2.AsyncClient, name: str, key: str) -> None:
        try:
            response = await client.post("/agents", json={"name": name}, headers={"Idempotency-Key": key})
        except httpx2.TransportError:
            return
        if response.status_code == 201:
            answered[name] = response.json()["id"]
        if len(answered) >= KILLED_AFTER:
            enough.set()

    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=60, trust_env=False) as client:
        await asyncio.gather(*(create(client, name, key) for name, key in keys.items()))
    return answered


async def _interrupted(platform: Platform, keys: dict[str, str]) -> dict[str, str]:
    """The same, with kill -9 of the platform in the middle."""
    enough = asyncio.Event()
    creates = asyncio.create_task(_create_all(f"{platform.url}/api/v1", keys, enough=enough))
    await enough.wait()
    platform.kill()
    return await creates


def test_creates_that_a_kill_cut_off_are_done_once_when_repeated(platform: Platform) -> None:
    mark = uuid4().hex[:8]
    keys = {f"Kept {mark} {number}": uuid4().hex for number in range(COUNT)}
    before = asyncio.run(_interrupted(platform, keys))
    assert len(before) >= KILLED_AFTER
    platform.start()
    for _ in range(2):
        after = asyncio.run(_create_all(f"{platform.url}/api/v1", keys, enough=asyncio.Event()))
        assert set(after) == set(keys)
        assert before.items() <= after.items()
        before = after
    with platform.client() as client:
        page = eventually(lambda: client.get("/agents", params={"limit": 200}).raise_for_status().json())
    made = {item["name"]: item["id"] for item in page["items"] if mark in item["name"]}
    assert made == before
    assert sum(mark in item["name"] for item in page["items"]) == COUNT
