"""Every failure as `application/problem+json`, with the id of its request."""

from __future__ import annotations

from socket import gaierror
from typing import Any

import httpx2
import pytest
from fastapi.routing import iter_route_contexts
from sqlalchemy.exc import DBAPIError

from app.core.config import Settings
from app.core.ids import new_id
from main import create_app
from tests.api.calls import API, ok, pointers, problem
from tests.fixtures import Running

pytestmark = pytest.mark.asyncio(loop_scope="session")

JSON = {"Content-Type": "application/json"}


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


class TestProblem:
    async def test_has_the_members_of_rfc_9457(self, client: httpx2.AsyncClient) -> None:
        body = problem(await client.get(f"{API}/agents/nobody"), 404, "not_found")
        assert body | {"request_id": "…"} == {
            "type": "urn:orrery:error:not_found",
            "title": "Not found",
            "status": 404,
            "detail": "There is no agent 'nobody' here.",
            "code": "not_found",
            "instance": f"{API}/agents/nobody",
            "request_id": "…",
            "errors": [],
        }

    async def test_of_an_unknown_path(self, client: httpx2.AsyncClient) -> None:
        problem(await client.get(f"{API}/nothing"), 404, "not_found")
        problem(await client.get("/nothing"), 404, "not_found")

    async def test_of_a_wrong_method_names_the_right_ones(self, client: httpx2.AsyncClient) -> None:
        response = await client.put(f"{API}/search", json={})
        problem(response, 405, "method_not_allowed")
        assert response.headers["Allow"] == "POST"

    async def test_of_a_body_that_is_too_large(self, client: httpx2.AsyncClient) -> None:
        body = b'{"name": "' + b"x" * 5 * 2**20
        response = await client.post(f"{API}/agents", content=body, headers=JSON)
        detail = problem(response, 413, "too_large")["detail"]
        assert f"at most {4 * 2**20} bytes (ORRERY_MAX_REQUEST_BYTES)" in detail
        assert response.headers["X-Content-Type-Options"] == "nosniff"

    async def test_of_a_crash_tells_nothing_of_the_inside(self, settings: Settings) -> None:
        response = await answer_to(settings, RuntimeError("secret of the inside"))
        body = problem(response, 500, "internal_error")
        assert "secret" not in response.text
        assert (body["request_id"], response.headers["X-Request-Id"]) == ("crash-0001", "crash-0001")

    @pytest.mark.parametrize(
        "stray", [TimeoutError(), ConnectionResetError("reset"), gaierror("no such host")]
    )
    async def test_of_a_time_out_or_broken_connection_does_not_blame_the_database(
        self, settings: Settings, stray: Exception
    ) -> None:
        problem(await answer_to(settings, stray), 500, "internal_error")

    async def test_of_a_database_that_is_away_says_so(self, settings: Settings) -> None:
        refused = DBAPIError(None, None, ConnectionRefusedError("refused"))
        response = await answer_to(settings, refused)
        assert "database" in problem(response, 503, "unavailable")["detail"]
        assert response.headers["Retry-After"] == "2"


async def answer_to(settings: Settings, error: Exception) -> httpx2.Response:
    """What a route that raises `error` is answered with."""

    async def boom() -> None:
        raise error

    app = create_app(settings)
    app.add_api_route("/boom", boom)
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test", verify=False) as caller:
        return await caller.get("/boom", headers={"X-Request-Id": "crash-0001"})


class TestRequestId:
    async def test_is_made_for_each_request(self, client: httpx2.AsyncClient) -> None:
        ids = {(await client.get(f"{API}/agents")).headers["X-Request-Id"] for _ in range(3)}
        assert len(ids) == 3

    async def test_of_the_caller_is_kept(self, client: httpx2.AsyncClient) -> None:
        response = await client.get(f"{API}/agents/nobody", headers={"X-Request-Id": "trace-12345678"})
        assert response.headers["X-Request-Id"] == "trace-12345678"
        assert response.json()["request_id"] == "trace-12345678"

    @pytest.mark.parametrize("given", ["short", "x" * 65, "with space", "semi;colon", '"quoted-1"'])
    async def test_that_is_not_sane_is_replaced(self, client: httpx2.AsyncClient, given: str) -> None:
        response = await client.get(f"{API}/agents", headers={"X-Request-Id": given})
        assert response.headers["X-Request-Id"] != given

    @pytest.mark.parametrize(
        ("method", "path", "size", "status"),
        [
            ("GET", "/nothing", 0, 404),
            ("PUT", f"{API}/search", 0, 405),
            ("POST", f"{API}/agents", 5 * 2**20, 413),
            ("POST", f"{API}/collections/texts/documents/text", 5 * 2**20, 413),
        ],
    )
    async def test_is_in_the_frameworks_answers_too(
        self, client: httpx2.AsyncClient, method: str, path: str, size: int, status: int
    ) -> None:
        headers = JSON | {"X-Request-Id": "trace-12345678"}
        response = await client.request(method, path, content=b"x" * size, headers=headers)
        assert problem(response, status, response.json()["code"])["request_id"] == "trace-12345678"
        assert response.headers["X-Request-Id"] == "trace-12345678"


class TestBody:
    async def test_that_is_missing_is_422(self, client: httpx2.AsyncClient) -> None:
        assert pointers(await client.post(f"{API}/agents", content=b"", headers=JSON)) == ["/body"]

    @pytest.mark.parametrize(
        ("body", "why"),
        [
            (b"{", "line 1, column 2"),
            (b'{"name":\n "x",\n}', "line 3, column 1"),
            (b"nonsense", "line 1, column 1"),
            (b"\xff\xfe\xfa", "not UTF-8"),
            (b"[" * 100_000, "nested too deep"),
            (b'{"name": ' + b"9" * 5000 + b"}", "too many digits"),
        ],
    )
    async def test_that_is_no_json_is_400_and_says_where(
        self, client: httpx2.AsyncClient, body: bytes, why: str
    ) -> None:
        response = await client.post(f"{API}/agents", content=body, headers=JSON)
        found = problem(response, 400, "malformed_json")
        assert why in found["detail"]
        assert [error["pointer"] for error in found["errors"]] == ["/body"]

    @pytest.mark.parametrize("body", [b"[]", b'"text"', b"3", b"null"])
    async def test_of_another_type_is_422(self, client: httpx2.AsyncClient, body: bytes) -> None:
        response = await client.post(f"{API}/agents", content=body, headers=JSON)
        assert pointers(response) == ["/body"]

    @pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "json"])
    async def test_of_another_kind_is_415_and_names_the_right_one(
        self, client: httpx2.AsyncClient, kind: str | None
    ) -> None:
        headers = {"Content-Type": kind} if kind else {}
        response = await client.post(f"{API}/agents", content=b'{"name": "Agent"}', headers=headers)
        assert "'application/json'" in problem(response, 415, "unsupported_media_type")["detail"]

    async def test_of_a_string_without_end_is_told_in_good_english(self, client: httpx2.AsyncClient) -> None:
        response = await client.post(f"{API}/agents", content=b'{"name": "', headers=JSON)
        detail = problem(response, 400, "malformed_json")["detail"]
        assert "Unterminated string starting at line 1, column 10" in detail

    @pytest.mark.parametrize("charset", ["utf-16", "latin-1", '"UTF-16LE"', "x"])
    async def test_in_another_charset_is_415_and_names_the_right_one(
        self, client: httpx2.AsyncClient, charset: str
    ) -> None:
        headers = {"Content-Type": f"application/json; charset={charset}"}
        for body in ('{"name": "Agent"}'.encode("utf-16"), b'{"name": "Agent"}', b"\xe9"):
            response = await client.post(f"{API}/agents", content=body, headers=headers)
            assert "'utf-8' only" in problem(response, 415, "unsupported_media_type")["detail"]

    @pytest.mark.parametrize(
        ("path", "body", "message"),
        [
            ("secrets", {"name": "empty", "value": ""}, "must not be empty"),
            ("auth/login", {"email": "a", "password": ""}, "must not be empty"),
            ("agents", {"name": ""}, "must not be empty"),
            ("search", {"collections": [], "query": "x"}, "must not be empty"),
            (
                "agents",
                {"name": "A", "colour": 1},
                "unknown field; valid: 'name', 'slug', 'description', 'graph'",
            ),
            (
                "collections/none/documents/text",
                {"items": [{"title": "A", "text": "A.", "tags": []}]},
                "unknown field; valid: 'external_id', 'title', 'text', 'metadata'",
            ),
            ("agents", {"name": "7"}, "a slug has at least 2 letters"),
        ],
    )
    async def test_with_a_wrong_field_says_what_would_be_right(
        self, client: httpx2.AsyncClient, path: str, body: dict[str, Any], message: str
    ) -> None:
        response = await client.post(f"{API}/{path}", json=body)
        assert pointers(response)
        (error,) = response.json()["errors"]
        assert message in error["message"]

    @pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "application/merge-patch+json"])
    async def test_of_a_kind_of_json_is_taken(self, client: httpx2.AsyncClient, kind: str) -> None:
        body = f'{{"name": "Agent {new_id().hex}"}}'.encode()
        ok(await client.post(f"{API}/agents", content=body, headers={"Content-Type": kind}), 201)

    @pytest.mark.parametrize(
        ("graph", "pointer"),
        [
            ('{"a": ["ok", "\\u0000"]}', "/body/graph/a/1"),
            ('{"a\\u0000": 1}', "/body/graph"),
            ('{"a/b~": "\\ud800"}', "/body/graph/a~1b~0"),
            ('{"a": NaN}', "/body/graph/a"),
            ('{"a": [1, -1e999]}', "/body/graph/a/1"),
        ],
    )
    async def test_that_no_row_can_hold_is_422(
        self, client: httpx2.AsyncClient, graph: str, pointer: str
    ) -> None:
        body = f'{{"name": "Agent", "graph": {graph}}}'
        assert pointers(await client.post(f"{API}/agents", content=body, headers=JSON)) == [pointer]

    async def test_may_be_nested_deep_but_not_without_end(self, client: httpx2.AsyncClient) -> None:
        body = {"name": "Agent", "graph": nested(98)}
        assert ok(await client.post(f"{API}/agents", json=body), 201)["draft"] == nested(98)
        response = await client.post(f"{API}/agents", json={"name": "Agent", "graph": nested(102)})
        assert "nested deeper than 100 levels" in problem(response, 422, "invalid")["detail"]

    async def test_keeps_numbers_of_any_length(self, client: httpx2.AsyncClient) -> None:
        body = {"name": "Agent", "graph": {"n": 10**400, "f": 0.1, "e": 5e-324}}
        assert ok(await client.post(f"{API}/agents", json=body), 201)["draft"] == body["graph"]


class TestUnknownQuery:
    async def test_is_refused_with_the_names_that_are_valid(self, client: httpx2.AsyncClient) -> None:
        response = await client.get(f"{API}/agents", params={"limti": "3", "limit": "3"})
        assert pointers(response) == ["/query/limti"]
        assert "'limit', 'cursor'" in response.json()["detail"]

    async def test_is_named_wherever_there_are_several(self, client: httpx2.AsyncClient) -> None:
        response = await client.get(f"{API}/agents", params={"b/c": "1", "a": "2"})
        assert pointers(response) == ["/query/b~1c", "/query/a"]

    async def test_is_refused_by_every_native_route(
        self, server: Running, client: httpx2.AsyncClient
    ) -> None:
        for context in iter_route_contexts(create_app(server.resources.settings).routes):
            path = context.path or ""
            if not path.startswith(API):
                continue
            for method in context.methods or ():
                url = path.replace("{", "").replace("}", "")
                response = await client.request(method, url, params={"no_such": "1"})
                assert pointers(response)[0] == "/query/no_such", (method, path)

    async def test_is_ignored_by_health_checks(self, client: httpx2.AsyncClient) -> None:
        ok(await client.get("/health/live", params={"probe": "1"}))

    @pytest.mark.parametrize("path", ["/agents/a%00b", "/collections/%00/documents", "/runs?agent=%00"])
    async def test_text_that_no_row_can_hold_is_refused(self, client: httpx2.AsyncClient, path: str) -> None:
        problem(await client.get(f"{API}{path}"), 422, "invalid")


class TestSecurityHeaders:
    async def test_are_on_every_answer(self, client: httpx2.AsyncClient) -> None:
        for path in (f"{API}/agents", f"{API}/agents/{new_id()}", "/nothing", "/health/live"):
            headers = (await client.get(path)).headers
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["X-Frame-Options"] == "DENY"
