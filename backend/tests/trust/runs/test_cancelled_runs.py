"""A cancelled run has ended within 5 s, whichever process was asked, and its model was told to stop."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from tests.openai_compatible_double import Double
from tests.trust.runs.agents import published, talking_graph
from tests.trust.runs.rows import until
from tests.trust.runs.streams import check_whole, event_of, opened, read, run_of
from tests.trust.runs.talking import question
from tests.trust.serving import KEY, Platform

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]

AN_HOUR_S = 3600


@pytest.mark.parametrize("elsewhere", [False, True], ids=["where it runs", "at another process"])
async def test_ends_and_aborts_the_call_of_its_model(
    api: Platform, other: Platform, model: Double, elsewhere: bool
) -> None:
    with api.client() as client:
        agent = published(client, "talks", talking_graph(1))
    left = model.left
    body = {"input": question(2, every_s=AN_HOUR_S), "mode": "stream"}
    async with opened(api.url, f"/agents/{agent}/runs", body=body) as stream:
        frames = stream.frames()
        seen = [await anext(frames)]

        async def asked() -> bool:
            return model.open == 1

        await until(asked)
        run = await cancelled(other if elsewhere else api, run_of(seen))
        assert run["status"] == "cancelled"  # `wait` answers after 5 s, whatever there is
        assert run["error"]["code"] == "cancelled"
        seen += [frame async for frame in frames]
    check_whole(seen)
    assert event_of(seen[-1])["code"] == "cancelled"
    assert seen == await read(other.url, run_of(seen))

    async def hung_up() -> bool:
        return (model.open, model.left) == (0, left + 1)

    await until(hung_up, within_s=5)


async def cancelled(process: Platform, run_id: str) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx2.AsyncClient(
        base_url=process.url, headers=headers, timeout=30, trust_env=False, verify=False
    ) as client:
        answer = await client.post(f"/api/v1/runs/{run_id}/cancel", params={"wait": "true"})
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found
