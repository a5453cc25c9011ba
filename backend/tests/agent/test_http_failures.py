"""How failures of `http` nodes name whom they called."""

from __future__ import annotations

from typing import Any

import pytest

from app.agent.core.http import Http
from app.agent.graph.ports import RunFailed
from app.services.http_service import ProjectHttp
from tests.agent.http_calls import Vault, bench, document, other_side, run
from tests.core.peers import in_turn, nobody_listening, ok, redirects, says, way_out


class TestFailure:
    """Messages name host, port and path, and not the query, which may hold what others must not know."""

    async def message(self, url: str, http: Http, **config: Any) -> str:
        query = {"token": "canary-query"}
        with pytest.raises(RunFailed) as failure:
            await run(bench(document(url, query=query, **config), http))
        assert "canary" not in failure.value.detail
        return failure.value.detail

    async def test_to_connect_names_the_place(self) -> None:
        with nobody_listening() as port:
            async with way_out("127.0.0.1") as egress:
                http = ProjectHttp(egress, Vault(), 1000)
                said = await self.message(f"http://127.0.0.1:{port}/orders/7?key=canary", http)
        assert said == (
            f"node 'call' failed: GET to '127.0.0.1:{port}/orders/7': "
            f"No connection to '127.0.0.1:{port}' could be made: it refused, or cannot be reached."
        )

    async def test_by_its_status_names_the_place(self) -> None:
        async with other_side(says(ok(b"no", status="404 Gone"))) as (there, http):
            said = await self.message(f"{there.url}orders/7#canary", http, method="POST")
        assert said == f"node 'call' failed: POST to '{there.authority}/orders/7' was answered 404: no"

    async def test_after_a_redirect_names_where_it_came_to(self) -> None:
        script = in_turn(redirects(302, "/there?canary"), says(ok(status="404 Gone")))
        async with other_side(script) as (there, http):
            said = await self.message(f"{there.url}here", http)
        assert said.startswith(f"node 'call' failed: GET to '{there.authority}/there' was answered 404")

    @pytest.mark.parametrize("url", ["http://[::1/x", "ftp://127.0.0.1/x", "http://canary:canary@127.0.0.1/"])
    async def test_of_an_address_that_is_never_called_shows_nothing_of_it(self, url: str) -> None:
        async with other_side() as (_, http):
            with pytest.raises(RunFailed, match="GET to ") as failure:
                await run(bench(document("{{ inputs.x }}"), http), x=url)
        assert failure.value.code == "bad_request"
        assert "canary" not in failure.value.detail

    async def test_quotes_no_endless_path(self) -> None:
        async with other_side(says(ok(status="404 Gone"))) as (there, http):
            assert len(await self.message(there.url + "x" * 5000, http)) < 500
