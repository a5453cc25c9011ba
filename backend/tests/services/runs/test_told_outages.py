"""What the log says of a database that is away: that it is, and that it is back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import make_url
from structlog.testing import capture_logs

from app.core.ids import new_id
from app.embedded import Services
from app.resources import open_resources
from app.services.runs import executor as executor_module
from app.services.runs import run_claims
from tests.fixtures import settings_for
from tests.services.runs.conftest import nobody_wakes
from tests.trust.proxy import open_proxy

pytestmark = pytest.mark.asyncio(loop_scope="session")
_EACH = ["commands_unread", "not_listening", "runs_not_claimed"]


async def test_each_service_of_the_executor_tells_its_outage_once(
    services: Services, services_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0
    claim_cancelled = run_claims.claim_cancelled

    async def counted(*arguments: object, **named: object) -> object:
        nonlocal tries
        tries += 1
        return await claim_cancelled(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(executor_module, "claim_cancelled", counted)
    place = make_url(services.database_url)
    async with open_proxy(str(place.host), int(place.port or 5432)) as proxy:
        url = place.set(host="127.0.0.1", port=proxy.port).render_as_string(hide_password=False)
        async with open_resources(
            settings_for(services, services_dir, blobs=tmp_path),
            database_url=url,
            redis_url=services.redis_url,
            wake=nobody_wakes,
            owner="local:told",
        ) as resources:
            executor = resources.executor
            executor.grace_s = 0
            executor.tasks[new_id()] = asyncio.create_task(asyncio.Event().wait())  # type: ignore[arg-type]
            with capture_logs() as logs:
                async with executor.running(), asyncio.timeout(120):
                    while not executor.log.watch.heard or not tries:
                        await asyncio.sleep(0.01)
                    proxy.cut()
                    before = tries
                    while {entry["event"] for entry in logs} < set(_EACH) or tries < before + 3:
                        await asyncio.sleep(0.01)
                    proxy.restore()
                    while len([entry for entry in logs if entry["event"] == "outage_over"]) < len(_EACH):
                        await asyncio.sleep(0.01)
    told = [entry["event"] for entry in logs if entry["event"] in _EACH]
    assert sorted(told) == _EACH
    assert sorted(entry["of"] for entry in logs if entry["event"] == "outage_over") == _EACH
