"""The signpost at `/`, and whether the process can serve."""

from __future__ import annotations

import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from posixpath import normpath

import httpx2
import pytest

from app.core.config import Settings
from main import create_app
from tests.api.calls import API, new_agent, ok
from tests.fixtures import Running, http_client

pytestmark = pytest.mark.asyncio(loop_scope="session")


class TestRoot:
    async def test_points_at_what_is_there(self, server: Running) -> None:
        async with http_client(server, None) as client:
            found = ok(await client.get("/"))
            assert found["api"] == API
            for place in ("health", "docs", "tutorial", "openapi"):
                assert (await client.get(found[place])).status_code == 200

    async def test_does_not_point_at_documentation_that_is_hidden(self) -> None:
        app = create_app(Settings(docs_enabled=False, _env_file=None))
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://orrery.test") as client:
            found = ok(await client.get("/"))
        assert set(found) == {"name", "version", "api", "health"}

    async def test_shows_browsers_a_page_that_loads_nothing(self, anyone: httpx2.AsyncClient) -> None:
        page = await anyone.get("/", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
        assert page.headers["Content-Type"].startswith("text/html")
        assert page.headers["Vary"] == "Accept"
        assert "<strong>ready</strong>" in page.text
        assert not re.search(r"<script|<img|<link|style=", page.text)
        policy = page.headers["Content-Security-Policy"]
        style = re.search(r"<style>(.*?)</style>", page.text, re.DOTALL)
        assert style
        digest = b64encode(sha256(style[1].encode()).digest()).decode()
        assert f"style-src 'sha256-{digest}'" in policy
        assert "default-src 'none'" in policy

    async def test_links_only_what_is_there(self, anyone: httpx2.AsyncClient) -> None:
        page = await anyone.get("/", headers={"Accept": "text/html"})
        links = re.findall(r'href="([^"]*)"', page.text)
        assert {"/docs", "/docs/tutorial", "/openapi.json", "/health/ready"} == set(links)
        for link in links:
            assert (await anyone.get(link)).status_code == 200

    async def test_shows_how_it_was_reached_and_nothing_as_html(self, anyone: httpx2.AsyncClient) -> None:
        headers = {"Accept": "text/html", "Host": 'orrery.test"><b>'}
        page = await anyone.get("/", headers=headers)
        assert "<b>" not in page.text
        named = await anyone.get("/", headers=headers | {"Host": "orrery.test:81"})
        assert "export ORRERY_URL=http://orrery.test:81 " in named.text

    async def test_shows_everybody_the_same(
        self, anyone: httpx2.AsyncClient, client: httpx2.AsyncClient
    ) -> None:
        await new_agent(client)
        pages = [await who.get("/", headers={"Accept": "text/html"}) for who in (anyone, client)]
        assert pages[0].text == pages[1].text

    async def test_has_the_tutorial_as_a_page(self, anyone: httpx2.AsyncClient) -> None:
        page = await anyone.get("/docs/tutorial")
        assert page.headers["Content-Type"].startswith("text/html")
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
        assert "<h1 " in page.text

    async def test_has_every_page_with_links_that_lead_on(self, anyone: httpx2.AsyncClient) -> None:
        folder = Path(__file__).parents[3] / "docs"
        files = [*folder.glob("*.md"), *folder.glob("reference/**/*.md")]
        names = [file.relative_to(folder).with_suffix("").as_posix() for file in files]
        assert set(names) >= {"tutorial", "models", "runs", "reference/index", "reference/codes/cycle"}
        pages = {f"/docs/{name}": (await anyone.get(f"/docs/{name}")).text for name in names}
        for name, page in pages.items():
            assert "<h1 " in page
            for link in re.findall(r'href="([^"]*)"', page):
                place, _, part = link.partition("#")
                target = normpath(f"{name}/../{place}") if place else name
                if "://" not in link:
                    assert target in pages, f"{name}: {link}"
                    assert not part or f'id="{part}"' in pages[target], f"{name}: {link}"

    async def test_has_no_other_file_as_a_page(self, anyone: httpx2.AsyncClient) -> None:
        for name in ("adr", "adr/0001-tests-own-an-organization", "..%2fREADME", "runs.md", "reference/none"):
            assert (await anyone.get(f"/docs/{name}")).status_code == 404


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
        assert (found["status"], found["checks"]["blobs"]) == ("degraded", "unreachable")
        assert ok(await anyone.get("/health/ready"))["status"] == "ok"
