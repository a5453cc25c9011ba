"""The signpost at `/`, and whether the process can serve."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest

from app.core.config import Settings
from main import create_app
from tests.api.calls import API, ok
from tests.fixtures import Running, http_client

pytestmark = pytest.mark.asyncio(loop_scope="session")


class TestRoot:
    async def test_points_at_what_is_there(self, server: Running) -> None:
        async with http_client(server, None) as client:
            found = ok(await client.get("/"))
            assert found["api"] == API
            for place in ("health", "docs", "openapi"):
                assert (await client.get(found[place])).status_code == 200

    async def test_does_not_point_at_documentation_that_is_hidden(self) -> None:
        app = create_app(Settings(docs_enabled=False, _env_file=None))
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://orrery.test") as client:
            found = ok(await client.get("/"))
        assert set(found) == {"name", "version", "api", "health"}


class TestReady:
    async def test_is_degraded_while_blobs_cannot_be_used(
        self, settings: Settings, anyone: httpx2.AsyncClient
    ) -> None:
        folder = Path(settings.blob_url or "")
        away = folder.rename(folder.with_name("away"))
        try:
            found = ok(await anyone.get("/health/ready"))
        finally:
            away.rename(folder)
        assert (found["status"], found["checks"]["blobs"]) == ("degraded", "Unavailable")
        assert ok(await anyone.get("/health/ready"))["status"] == "ok"
