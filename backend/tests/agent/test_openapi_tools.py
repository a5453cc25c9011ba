"""`openapi` and `http`: what is sent for a call's arguments, and which operations cannot be used."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.agent.core.interfaces import ToolFailed
from app.core.errors import Invalid
from tests.agent.http_calls import JSON, TOKEN
from tests.agent.tool_calls import answered_by, offered, opened, registered
from tests.core.peers import ok, says

FINE = says(ok(b'{"fine": true}', headers=[JSON]))
PET = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": "^[A-Z]"},
        "age": {"type": "integer", "minimum": 0, "exclusiveMinimum": True, "nullable": True},
        "friend": {"$ref": "#/components/schemas/Pet"},
    },
    "required": ["name"],
}


def api(**operations: Any) -> dict[str, Any]:
    """A document with operations by `method_name`, each on a path of its own unless it says which."""
    paths: dict[str, Any] = {}
    for name, operation in operations.items():
        method, _, rest = name.partition("_")
        given = {"operationId": name, **operation}
        paths.setdefault(given.pop("path", f"/{rest}"), {})[method] = given
    return {"openapi": "3.0.3", "paths": paths, "components": {"schemas": {"Pet": PET}}}


def config(document: Any, url: str = "https://api.example", **changes: Any) -> dict[str, Any]:
    return {"kind": "openapi", "document": document, "base_url": url} | changes


def parameter(name: str, place: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "in": place, "schema": {"type": "string"}} | more


SHOW = {
    "path": "/pets/{pet-id}",
    "parameters": [
        parameter("pet-id", "path", required=True),
        parameter("tag[]", "query", schema={"type": "array", "items": {"type": "string"}}),
        parameter("X-Trace", "header"),
    ],
}
ADD = {
    "path": "/pets",
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Pet"}}},
    },
}


class TestRequest:
    async def test_arguments_go_to_their_places(self) -> None:
        async with answered_by(FINE) as (there, ports):
            tools = await registered(config(api(get_pet=SHOW), there.url + "v1"), ports)
            given = {"pet-id": "a/b", "tag": ["x", "y"], "X-Trace": "t"}
            result = await tools["get_pet"].call(given, idempotency_key="k")
        sent = there.requests[0]
        assert (sent.method, sent.target) == ("GET", "/v1/pets/a%2Fb?tag%5B%5D=x&tag%5B%5D=y")
        assert (sent.headers["x-trace"], "idempotency-key" in sent.headers) == ("t", False)
        assert result.content == {"fine": True}

    async def test_what_is_not_given_is_left_out(self) -> None:
        async with answered_by(FINE) as (there, ports):
            tools = await registered(config(api(get_pet=SHOW), there.url), ports)
            await tools["get_pet"].call({"pet-id": "1"}, idempotency_key=None)
        assert there.requests[0].target == "/pets/1"
        assert "x-trace" not in there.requests[0].headers

    @pytest.mark.parametrize("value", ["", ".", ".."])
    async def test_no_value_leads_to_another_path(self, value: str) -> None:
        async with answered_by(FINE) as (there, ports):
            tools = await registered(config(api(get_pet=SHOW), there.url), ports)
            with pytest.raises(ToolFailed) as failure:
                await tools["get_pet"].call({"pet-id": value}, idempotency_key=None)
        assert (failure.value.code, there.requests) == ("invalid_arguments", [])

    async def test_a_body_is_json_and_writes_once(self) -> None:
        async with answered_by(FINE) as (there, ports):
            tools = await registered(config(api(post_pet=ADD), there.url), ports)
            body = {"name": "rex", "age": None}
            await tools["post_pet"].call({"body": body}, idempotency_key="k-1")
        sent = there.requests[0]
        assert (json.loads(sent.body), sent.headers["idempotency-key"]) == (body, "k-1")

    async def test_secrets_are_sent_and_not_shown_when_they_come_back(self) -> None:
        headers = {"Authorization": {"secret": "crm-token", "prefix": "Bearer "}}
        echo = says(ok(f'"{TOKEN}"'.encode(), headers=[JSON]))
        async with answered_by(echo) as (there, ports):
            tools = await registered(config(api(get_all={}), there.url, headers=headers), ports)
            result = await tools["get_all"].call({}, idempotency_key=None)
        assert there.requests[0].headers["authorization"] == f"Bearer {TOKEN}"
        assert (result.content, result.text) == ("***", "***")

    async def test_what_is_refused_has_a_code(self) -> None:
        async with answered_by(says(ok(b"no", status="404 Gone"))) as (there, ports):
            tools = await registered(config(api(get_all={}), there.url), ports)
            with pytest.raises(ToolFailed, match="answered 404") as failure:
                await tools["get_all"].call({}, idempotency_key=None)
        assert failure.value.code == "http_status"


class TestDocument:
    async def test_may_be_text_in_yaml(self) -> None:
        paths = "paths:\n  /x:\n    get: {responses: {200: {}}}\n"
        text = f"openapi: 3.1.0\nservers: [{{url: 'https://a.example'}}]\n{paths}"
        async with opened() as ports:
            found = await offered({"kind": "openapi", "document": text}, ports)
        assert [one.name for one in found.operations] == ["get_x"]
        assert found.operations[0].call["url"] == "https://a.example/x"

    async def test_schemas_are_written_out_without_circles_and_patterns(self) -> None:
        async with opened() as ports:
            found = await offered(config(api(post_pet=ADD)), ports)
        assert found.operations[0].parameters["properties"]["body"] == {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "age": {"type": ["integer", "null"], "exclusiveMinimum": 0},
                "friend": {},
            },
            "required": ["name"],
        }

    async def test_effects_go_by_the_method_unless_they_are_given(self) -> None:
        async with opened() as ports:
            made = config(api(get_a={}, post_b={}, post_c={}), effects={"post_c": "read"})
            found = await offered(made, ports)
        assert [one.effect for one in found.operations] == ["read", "write", "read"]

    @pytest.mark.parametrize(
        ("operation", "reason"),
        [
            ({"path": "/a/{b}"}, "there is no such parameter"),
            ({"parameters": [parameter("c", "cookie", required=True)]}, "cookies are not sent"),
            ({"parameters": [parameter("c", "query", required=True, style="pipeDelimited")]}, "style"),
            ({"parameters": [{"$ref": "#/components/parameters/gone"}]}, "leads to nothing"),
            ({"requestBody": {"required": True, "content": {"image/png": {}}}}, "'image/png'"),
            ({"servers": [{"url": "https://other.example"}]}, "a server of its own"),
            ({"parameters": [parameter("c", "query", schema={"type": "texts"})]}, "no JSON type"),
        ],
    )  # fmt: skip
    async def test_what_cannot_be_used_is_told_and_the_rest_is_offered(
        self, operation: dict[str, Any], reason: str
    ) -> None:
        async with opened() as ports:
            found = await offered(config(api(get_odd=operation, get_fine={})), ports)
        assert [one.name for one in found.operations] == ["get_fine"]
        assert [(one.name, reason in one.reason) for one in found.unusable] == [("get_odd", True)]

    @pytest.mark.parametrize(
        ("changes", "pointer"),
        [
            ({"document": {"swagger": "2.0", "paths": {}}}, "/body/config/document/openapi"),
            ({"document": {"openapi": "3.1.0"}}, "/body/config/document/paths"),
            ({"document": "{"}, "/body/config/document"),
            ({"base_url": None}, "/body/config/document/servers"),
            ({"operations": ["get_gone"]}, "/body/config/operations"),
            ({"effects": {"get_gone": "read"}}, "/body/config/effects"),
        ],
    )  # fmt: skip
    async def test_what_is_wrong_as_a_whole_is_pointed_at(
        self, changes: dict[str, Any], pointer: str
    ) -> None:
        async with opened() as ports:
            with pytest.raises(Invalid) as failure:
                await offered(config(api(get_a={})) | changes, ports)
        assert [error.pointer for error in failure.value.errors] == [pointer]

    async def test_too_many_operations_are_to_be_named(self) -> None:
        many = api(**{f"get_{number}": {} for number in range(5)})
        async with opened(max_operations=3) as ports:
            with pytest.raises(Invalid, match="name those wanted"):
                await offered(config(many), ports)
            found = await offered(config(many, operations=["get_4"]), ports)
        assert [one.name for one in found.operations] == ["get_4"]


class TestHttp:
    async def test_arguments_fill_the_request(self) -> None:
        properties = {"city": {"type": "string"}, "note": {"type": "string"}}
        async with answered_by(FINE) as (there, ports):
            made = {
                "kind": "http",
                "request": {
                    "method": "POST",
                    "url": f"{there.url}{{{{ arguments.city }}}}",
                    "headers": {"X-Note": "{{ arguments.note }}"},
                    "body": {"json": {"in": "{{ arguments.city }}"}},
                },
                "parameters": {"type": "object", "properties": properties, "required": ["city"]},
            }
            tool = (await registered(made, ports))["tool"]
            await tool.call({"city": "São Paulo"}, idempotency_key="k")
        sent = there.requests[0]
        assert (sent.target, json.loads(sent.body)) == ("/S%C3%A3o%20Paulo", {"in": "São Paulo"})
        assert (sent.headers["idempotency-key"], "x-note" in sent.headers) == ("k", False)

    async def test_text_for_models_is_cut(self) -> None:
        async with answered_by(says(ok(b"x" * 500)), max_text=100) as (there, ports):
            tool = (await registered({"kind": "http", "request": {"url": there.url}}, ports))["tool"]
            result = await tool.call({}, idempotency_key=None)
        assert result.text == "x" * 100 + "… (cut: 500 characters in all)"
        assert len(result.content) == 500
