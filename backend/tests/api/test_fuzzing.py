"""Every operation as `openapi.json` describes it, with data that fits and data that does not (schemathesis).

No answer is a server error, and each is one of those described. A test that fails prints its seed:
`ORRERY_SEED=n` repeats it. The full size is `-m soak`.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
from typing import Any

import pytest
import pytest_asyncio
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.api.calls import API, add_texts, new_agent, new_collection, ok, problem, work
from tests.api.operations import DOCUMENT
from tests.factories import Factory, Member
from tests.fixtures import Running, http_client

pytestmark = pytest.mark.asyncio(loop_scope="session")

EXAMPLES, MANY_EXAMPLES = 3, 500
SEED = int(os.environ.get("ORRERY_SEED") or random.randrange(2**32))
OPERATIONS = [found.ok() for found in schemathesis.openapi.from_dict(DOCUMENT).get_all_operations()]
CASES = [
    pytest.param(operation, mode, id=f"{operation.label} {mode.value}")
    for operation in OPERATIONS
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    if API in operation.label or mode is GenerationMode.POSITIVE  # health checks take nothing
]
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
QUIET = settings(
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate, Phase.shrink],
)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def fuzzer(server: Running) -> Member:
    return await Factory(server.resources).member()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def known(server: Running, fuzzer: Member) -> dict[str, str]:
    """Path parameters of things that are there, so that requests get further than 404."""
    async with http_client(server, fuzzer.key) as client:
        agent, collection = await new_agent(client), await new_collection(client)
        run = ok(await client.post(f"{API}/agents/{agent}/runs", json={"input": {"name": "Ada"}}))
        taken = await add_texts(client, collection, {"title": "Map", "text": "Gold."})
        await work(server)
    return {
        "agent": agent,
        "collection": collection,
        "run_id": run["id"],
        "job_id": taken["job_id"],
        "document_id": taken["items"][0]["document_id"],
    }


def fuzz(
    server: Running, member: Member, cases: SearchStrategy[Case], known: dict[str, str], examples: int
) -> None:
    """Sends `examples` requests to one operation; every second one to something that is there."""
    sent = 0
    session = requests.Session()
    session.trust_env = False
    headers = {"Authorization": f"Bearer {member.key}"}

    @seed(SEED)
    @settings(QUIET, max_examples=examples)
    @given(cases)
    def send(case: Case) -> None:
        nonlocal sent
        sent += 1
        if sent % 2 and case.method != "DELETE":
            case.path_parameters |= {name: known[name] for name in case.path_parameters.keys() & known.keys()}
            case.headers.pop("X-Project-Id", None)
        response = case.call(base_url=server.url, session=session, headers=headers, timeout=60)
        case.validate_response(response, checks=CHECKS)

    with session:
        send()


class TestEveryOperation:
    @pytest.mark.parametrize(("operation", "mode"), CASES)
    async def test_answers_as_described(
        self, server: Running, fuzzer: Member, known: dict[str, str], operation: Any, mode: GenerationMode
    ) -> None:
        print(f"ORRERY_SEED={SEED}")  # noqa: T201
        await asyncio.to_thread(fuzz, server, fuzzer, operation.as_strategy(mode), known, EXAMPLES)

    @pytest.mark.soak
    @pytest.mark.parametrize(("operation", "mode"), CASES)
    async def test_answers_as_described_at_full_size(
        self, server: Running, fuzzer: Member, known: dict[str, str], operation: Any, mode: GenerationMode
    ) -> None:
        print(f"ORRERY_SEED={SEED}")  # noqa: T201
        await asyncio.to_thread(fuzz, server, fuzzer, operation.as_strategy(mode), known, MANY_EXAMPLES)


def paths_of(url: str) -> list[str]:
    """The described paths that a URL fits: `/agents/{agent}` takes `/agents/validate`, too."""
    return [path for path in DOCUMENT["paths"] if re.fullmatch(re.sub(r"{\w+}", "[^/]+", path), url)]


class TestEveryPath:
    @pytest.mark.parametrize("path", [path for path in DOCUMENT["paths"] if path.startswith(API)])
    async def test_refuses_methods_that_are_not_described(
        self, server: Running, fuzzer: Member, path: str
    ) -> None:
        url = path.replace("{", "").replace("}", "")
        described = {method.upper() for other in paths_of(url) for method in DOCUMENT["paths"][other]}
        async with http_client(server, fuzzer.key) as client:
            for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PURGE"} - described:
                response = await client.request(method, url)
                problem(response, 405, "method_not_allowed")
                assert described <= set(response.headers["Allow"].split(", "))
