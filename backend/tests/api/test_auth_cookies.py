"""A browser's session in cookies, and what pages of other origins cannot do with it."""

from __future__ import annotations

import json
from http.cookies import Morsel, SimpleCookie
from typing import Any

import httpx2
import pytest
from starlette.requests import HTTPConnection

from app.api.cookies import SessionCookies
from app.core.config import Settings
from app.core.errors import Forbidden
from tests.api.calls import API, ok, problem
from tests.factories import Factory, Member, Person
from tests.fixtures import http_client, running_server

pytestmark = pytest.mark.asyncio(loop_scope="session")

ELSEWHERE = {"Origin": "https://evil.example"}


@pytest.fixture
def browser(anyone: httpx2.AsyncClient) -> httpx2.AsyncClient:
    """Keeps cookies."""
    return anyone


async def login(browser: httpx2.AsyncClient, person: Person) -> dict[str, str]:
    """Logs in; the header that shows one is not another origin."""
    grant = ok(await browser.post(f"{API}/auth/login", json=person.login | {"cookie": True}))
    return {"X-CSRF-Token": grant["csrf_token"]}


def cookies(response: httpx2.Response) -> dict[str, Morsel[str]]:
    found: SimpleCookie = SimpleCookie()
    for header in response.headers.get_list("set-cookie"):
        found.load(header)
    return dict(found)


class TestLogin:
    async def test_puts_the_tokens_where_no_script_reads_them(
        self, browser: httpx2.AsyncClient, person: Person
    ) -> None:
        response = await browser.post(f"{API}/auth/login", json=person.login | {"cookie": True})
        grant, put = ok(response), cookies(response)
        assert (grant["access_token"], grant["refresh_token"]) == (None, None)
        for name in ("orrery_access", "orrery_refresh"):
            assert put[name]["httponly"]
            assert put[name]["samesite"] == "strict"
            assert put[name].value not in response.text
        assert put["orrery_refresh"]["path"] == f"{API}/auth"

    async def test_lets_scripts_read_the_csrf_token(
        self, browser: httpx2.AsyncClient, person: Person
    ) -> None:
        response = await browser.post(f"{API}/auth/login", json=person.login | {"cookie": True})
        csrf = cookies(response)["orrery_csrf"]
        assert csrf.value == ok(response)["csrf_token"]
        assert not csrf["httponly"]

    async def test_without_cookies_sets_none(self, browser: httpx2.AsyncClient, person: Person) -> None:
        response = await browser.post(f"{API}/auth/login", json=person.login)
        assert cookies(response) == {}
        assert ok(response)["csrf_token"] is None

    async def test_is_shown_as_a_browsers(self, browser: httpx2.AsyncClient, person: Person) -> None:
        await login(browser, person)
        (shown,) = ok(await browser.get(f"{API}/auth/sessions"))["items"]
        assert shown["browser"]

    async def test_into_cookies_is_not_for_other_origins(
        self, browser: httpx2.AsyncClient, person: Person
    ) -> None:
        body = person.login | {"cookie": True}
        response = await browser.post(f"{API}/auth/login", json=body, headers=ELSEWHERE)
        problem(response, 403, "cross_origin")
        assert cookies(response) == {}

    async def test_of_a_form_is_refused(self, browser: httpx2.AsyncClient, person: Person) -> None:
        content = json.dumps(person.login | {"cookie": True})
        for kind in ("text/plain", "application/x-www-form-urlencoded"):
            headers = {"Content-Type": kind}
            response = await browser.post(f"{API}/auth/login", content=content, headers=headers)
            problem(response, 415, "unsupported_media_type")


class TestUse:
    async def test_reads_with_the_cookie_alone(self, browser: httpx2.AsyncClient, person: Person) -> None:
        await login(browser, person)
        me = ok(await browser.get(f"{API}/auth/me"))
        assert me["user_id"] == str(person.user_id)

    async def test_writes_with_the_csrf_token(self, browser: httpx2.AsyncClient, person: Person) -> None:
        csrf = await login(browser, person)
        headers = csrf | {"X-Project-Id": "default", "Origin": str(browser.base_url).rstrip("/")}
        ok(await browser.post(f"{API}/agents", json={"name": "Agent"}, headers=headers), 201)

    @pytest.mark.parametrize(
        ("header", "code"),
        [({}, "csrf_token_missing"), ({"X-CSRF-Token": "wrong"}, "csrf_token_wrong")],
        ids=["missing", "wrong"],
    )
    @pytest.mark.parametrize(
        ("method", "path"),
        [("POST", "agents"), ("DELETE", "agents/mine"), ("PATCH", "agents/mine")],
    )
    async def test_writes_nothing_without(
        self,
        browser: httpx2.AsyncClient,
        person: Person,
        method: str,
        path: str,
        header: dict[str, str],
        code: str,
    ) -> None:
        await login(browser, person)
        headers = header | {"X-Project-Id": "default"}
        response = await browser.request(method, f"{API}/{path}", json={"name": "Agent"}, headers=headers)
        assert "Permission" not in problem(response, 403, code)["title"]

    async def test_writes_nothing_with_the_token_of_another_session(
        self, browser: httpx2.AsyncClient, person: Person
    ) -> None:
        other = await login(browser, person)
        await login(browser, person)
        headers = other | {"X-Project-Id": "default"}
        response = await browser.post(f"{API}/agents", json={"name": "Agent"}, headers=headers)
        problem(response, 403, "csrf_token_wrong")

    @pytest.mark.parametrize(
        "origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://[bad", "garbage", ""]
    )
    async def test_writes_nothing_for_another_origin(
        self, browser: httpx2.AsyncClient, person: Person, origin: str
    ) -> None:
        csrf = await login(browser, person)
        headers = csrf | {"X-Project-Id": "default", "Origin": origin}
        response = await browser.post(f"{API}/agents", json={"name": "Agent"}, headers=headers)
        problem(response, 403, "cross_origin")

    async def test_of_a_bearer_token_needs_no_csrf_token(
        self, browser: httpx2.AsyncClient, person: Person
    ) -> None:
        await login(browser, person)
        grant = ok(await browser.post(f"{API}/auth/login", json=person.login))
        headers = {"Authorization": f"Bearer {grant['access_token']}", "X-Project-Id": "default"}
        ok(await browser.post(f"{API}/agents", json={"name": "Agent"}, headers=headers | ELSEWHERE), 201)

    async def test_of_a_key_in_the_cookie_is_refused(
        self, browser: httpx2.AsyncClient, member: Member
    ) -> None:
        browser.cookies.set("orrery_access", member.key)
        problem(await browser.get(f"{API}/agents"), 401, "unauthenticated")


class TestRefresh:
    async def test_replaces_the_cookies(self, browser: httpx2.AsyncClient, person: Person) -> None:
        csrf = await login(browser, person)
        before = browser.cookies["orrery_refresh"]
        grant = ok(await browser.post(f"{API}/auth/refresh", headers=csrf))
        assert grant["refresh_token"] is None
        assert browser.cookies["orrery_refresh"] != before
        ok(await browser.get(f"{API}/auth/me"))
        ok(await browser.post(f"{API}/auth/refresh", headers={"X-CSRF-Token": grant["csrf_token"]}))

    @pytest.mark.parametrize(
        ("header", "code"),
        [
            ({}, "csrf_token_missing"),
            ({"X-CSRF-Token": "wrong"}, "csrf_token_wrong"),
            (ELSEWHERE, "cross_origin"),
        ],
        ids=["missing", "wrong", "elsewhere"],
    )
    async def test_is_not_for_other_origins(
        self, browser: httpx2.AsyncClient, person: Person, header: dict[str, str], code: str
    ) -> None:
        await login(browser, person)
        problem(await browser.post(f"{API}/auth/refresh", headers=header), 403, code)
        problem(await browser.post(f"{API}/auth/logout", headers=header), 403, code)
        ok(await browser.get(f"{API}/auth/me"))


class TestLogout:
    async def test_takes_the_cookies_away(self, browser: httpx2.AsyncClient, person: Person) -> None:
        csrf = await login(browser, person)
        kept = dict(browser.cookies)
        assert (await browser.post(f"{API}/auth/logout", headers=csrf)).status_code == 204
        assert dict(browser.cookies) == {}
        assert (await browser.post(f"{API}/auth/logout")).status_code == 204
        browser.cookies.update(kept)
        problem(await browser.get(f"{API}/auth/me"), 401, "unauthenticated")

    async def test_takes_away_also_what_nobody_knows_any_more(self, browser: httpx2.AsyncClient) -> None:
        answer = await browser.post(f"{API}/auth/logout", headers={"Cookie": "orrery_refresh=garbage"})
        assert answer.status_code == 204
        assert any(cookie.startswith('orrery_refresh=""') for cookie in answer.headers.get_list("set-cookie"))


class TestBehindHttps:
    async def test_cookies_are_secure_and_bound_to_the_host(self, settings: Settings, make: Factory) -> None:
        changed = settings.model_copy(update={"public_url": "https://orrery.example"})
        async with running_server(changed) as secure, http_client(secure, None) as browser:
            body = (await make.person()).login | {"cookie": True}
            put = cookies(await browser.post(f"{API}/auth/login", json=body))
            elsewhere = await browser.post(f"{API}/auth/login", json=body, headers={"Origin": secure.url})
        assert set(put) == {"__Host-orrery_access", "__Secure-orrery_refresh", "__Host-orrery_csrf"}
        assert all(cookie["secure"] for cookie in put.values())
        for name, cookie in put.items():
            assert cookie["domain"] == ""
            assert cookie["path"] == ("/" if name.startswith("__Host-") else f"{API}/auth")
        problem(elsewhere, 403, "cross_origin")


class TestWebSocket:
    """It cannot carry a header, so its origin has to do."""

    def handshake(self, headers: dict[str, str]) -> HTTPConnection:
        scope: dict[str, Any] = {"type": "websocket", "headers": []}
        scope["headers"] = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        return HTTPConnection(scope)

    async def test_of_the_own_origin_needs_no_token(self) -> None:
        own = {"Host": "orrery.example", "Origin": "https://orrery.example"}
        SessionCookies(None).check_use(self.handshake(own), csrf="token")

    async def test_of_another_origin_is_refused(self) -> None:
        other = {"Host": "orrery.example", "Origin": "https://evil.example"}
        with pytest.raises(Forbidden):
            SessionCookies(None).check_use(self.handshake(other), csrf="token")
