"""The page of documentation: everything that it needs comes from this server."""

from __future__ import annotations

import re
from urllib.parse import urljoin

import httpx2
import pytest

from app.api import docs
from app.core.config import Settings
from main import create_app
from tests.fixtures import Running

pytestmark = pytest.mark.asyncio(loop_scope="session")
LINK = re.compile(r'(?:src|href)="([^"]*)"')


class TestPage:
    async def test_names_no_other_origin(self, anyone: httpx2.AsyncClient) -> None:
        page, start = [await anyone.get(path) for path in ("/docs", "/docs/start.js")]
        assert "//" not in page.text + start.text
        assert "validatorUrl: null" in start.text

    async def test_has_all_that_it_links(self, server: Running, anyone: httpx2.AsyncClient) -> None:
        page = await anyone.get("/docs")
        assert page.headers["Content-Type"].startswith("text/html")
        links = {urljoin(f"{server.url}/docs", link) for link in LINK.findall(page.text)}
        own = {f"{server.url}{path}" for path in docs.PATHS if path != docs.PAGE}
        assert links == own | {f"{server.url}/openapi.json"}
        for link in links:
            assert (await anyone.get(link)).is_success, link

    async def test_runs_nothing_that_stands_in_itself_or_elsewhere(self, anyone: httpx2.AsyncClient) -> None:
        for path in docs.PATHS:
            policy = (await anyone.get(path)).headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert "//" not in policy
        page = (await anyone.get("/docs")).text
        assert not re.search(r"<style|style=|\son\w+=|<script(?![^>]*src=)", page)

    async def test_shows_openapi_3_1(self, anyone: httpx2.AsyncClient) -> None:
        script = await anyone.get("/docs/swagger-ui-bundle.js")
        assert script.headers["Content-Type"].startswith("text/javascript")
        version = re.search(r'PACKAGE_VERSION:"(\d+)\.', script.text)
        assert version
        assert int(version[1]) >= 5
        assert (await anyone.get("/openapi.json")).json()["openapi"].startswith("3.1")

    async def test_is_not_there_where_documentation_is_off(self) -> None:
        app = create_app(Settings(docs_enabled=False, _env_file=None))
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://orrery.test") as client:
            for path in (*docs.PATHS, "/openapi.json"):
                assert (await client.get(path)).status_code == 404
