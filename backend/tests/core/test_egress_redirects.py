"""Redirects: each hop is a call of its own, and credentials stay with whom they were meant for."""

from __future__ import annotations

import asyncio

import pytest

from app.core.egress import Call, EgressDenied, EgressFailed
from tests.core.peers import NAME, Names, Request, in_turn, names, ok, peer, redirects, says, way_out

STATUSES = (301, 302, 303, 307, 308)
SECRETS = {"Authorization": "Bearer a", "Cookie": "b=c", "X-Api-Key": "d", "X-Anything": "e"}


class TestFollowing:
    @pytest.mark.parametrize("status", STATUSES)
    @pytest.mark.parametrize(
        "location", ["/b?c#d", "b?c", "?c", "//{authority}/b?c", "http://{authority}/b?c"]
    )
    async def test_leads_to_the_target(self, status: int, location: str) -> None:
        async with peer() as other, way_out(other.authority) as egress:

            async def script(request: Request, writer: object) -> None:
                first = request.target == "/a"
                answer = (
                    redirects(status, location.format(authority=other.authority)) if first else says(ok())
                )
                await answer(request, writer)  # type: ignore[arg-type]

            other.script = script
            reply = await egress.fetch(Call("GET", f"{other.url}a"))
        expected = "/a?c" if location == "?c" else "/b?c"
        assert (reply.status, reply.url) == (200, f"http://{other.authority}{expected}")

    @pytest.mark.parametrize("status", [300, 304, 305, 306, 399])
    async def test_is_for_redirects_only(self, status: int) -> None:
        async with peer(redirects(status, "/b")) as other, way_out(other.authority) as egress:
            assert (await egress.fetch(Call("GET", other.url))).status == status

    async def test_needs_a_location(self) -> None:
        async with peer(says(ok(status="302 Found"))) as other, way_out(other.authority) as egress:
            assert (await egress.fetch(Call("GET", other.url))).status == 302

    async def test_can_be_left_to_the_caller(self) -> None:
        async with peer(redirects(302, "/b")) as other, way_out(other.authority) as egress:
            reply = await egress.fetch(Call("GET", other.url, follow=False))
        assert (reply.status, reply.headers["location"], len(other.requests)) == (302, "/b", 1)

    async def test_in_a_circle_ends(self) -> None:
        async with peer(redirects(302, "/")) as other, way_out(other.authority) as egress:
            with pytest.raises(EgressFailed, match="more than 5 times"):
                await egress.fetch(Call("GET", other.url))
        assert len(other.requests) == 6

    async def test_of_two_hundred_hops_ends(self) -> None:
        async def script(request: Request, writer: asyncio.StreamWriter) -> None:
            n = int(request.target[1:])
            await (redirects(307, f"/{n + 1}") if n < 200 else says(ok()))(request, writer)

        async with peer(script) as other, way_out(other.authority) as egress:
            with pytest.raises(EgressFailed, match="more than 5 times"):
                await egress.fetch(Call("GET", f"{other.url}0"))
        assert len(other.requests) == 6

    async def test_leaves_no_connection(self) -> None:
        async with peer(redirects(302, "/")) as other:
            async with way_out(other.authority) as egress:
                with pytest.raises(EgressFailed):
                    await egress.fetch(Call("GET", other.url))
            await other.alone()


class TestMethods:
    @pytest.mark.parametrize(
        ("status", "method", "then"),
        [
            (301, "POST", "GET"),
            (302, "POST", "GET"),
            (303, "POST", "GET"),
            (303, "PUT", "GET"),
            (303, "DELETE", "GET"),
            (303, "HEAD", "HEAD"),
            (301, "PUT", "PUT"),
            (302, "HEAD", "HEAD"),
            (307, "POST", "POST"),
            (308, "POST", "POST"),
            (307, "DELETE", "DELETE"),
        ],
    )
    async def test_change_as_in_a_browser(self, status: int, method: str, then: str) -> None:
        script = in_turn(redirects(status, "/b"), says(ok(b"")))
        async with peer(script) as other, way_out(other.authority) as egress:
            await egress.fetch(Call(method, other.url, {"Content-Type": "text/x"}, b"body"))
        sent = other.requests[-1]
        expected = (then, b"body", "text/x") if then == method else (then, b"", None)
        assert (sent.method, sent.body, sent.headers.get("content-type")) == expected


class TestCredentials:
    async def test_stay_within_the_origin(self) -> None:
        async with peer() as first, peer() as second:
            first.script = redirects(307, second.url)
            async with way_out(first.authority, second.authority) as egress:
                await egress.fetch(Call("POST", first.url, {**SECRETS, "Accept": "x/y"}, b"body"))
        assert second.requests[0].headers == {
            "host": second.authority,
            "user-agent": "Orrery",
            "accept": "x/y",
            "content-length": "4",
            "accept-encoding": "gzip, deflate",
        }

    async def test_go_along_within_the_origin(self) -> None:
        script = in_turn(redirects(302, "/b"), says(ok()))
        async with peer(script) as other, way_out(other.authority) as egress:
            await egress.fetch(Call("GET", other.url, SECRETS))
        assert SECRETS.items() == {(name, other.requests[-1].headers.get(name.lower())) for name in SECRETS}

    async def test_do_not_come_back_with_a_detour(self) -> None:
        async with peer() as first, peer() as second:
            second.script = redirects(302, f"{first.url}back")
            first.script = in_turn(redirects(302, second.url), says(ok()))
            async with way_out(first.authority, second.authority) as egress:
                await egress.fetch(Call("GET", first.url, SECRETS))
        assert {name.lower() for name in SECRETS} & set(first.requests[-1].headers) == set()

    async def test_stay_with_the_name_when_another_has_the_same_address(self) -> None:
        resolver = Names(public_example=[["127.0.0.1"]], other_example=[["127.0.0.1"]])
        async with peer() as other, way_out(other.authority, resolver=resolver) as egress:
            other.script = in_turn(redirects(302, f"http://other.example:{other.port}/"), says(ok()))
            await egress.fetch(Call("GET", f"http://{NAME}:{other.port}/", SECRETS))
        assert (other.connections, "authorization" in other.requests[-1].headers) == (2, False)


class TestRefusedTargets:
    @pytest.mark.parametrize(
        "location",
        [
            "http://127.0.0.1:{inner}/",
            "http://[::1]:{inner}/",
            "http://localhost:{inner}/",
            "http://2130706433:{inner}/",
            "//127.0.0.1:{inner}/",
            "http://inner.example:{inner}/",
            "http://a:b@{outer}/",
            "http://a@{outer}/",
            "file:///etc/passwd",
            "ftp://{outer}/",
            "gopher://{outer}/_x",
            "javascript:alert(1)",
            "data:text/plain,x",
            "http://[",
            "http://a..b/",
        ],
    )
    async def test_are_not_called(self, location: str) -> None:
        resolver = Names(inner_example=[["127.0.0.1"]], localhost=[["127.0.0.1"]])
        async with peer() as outer, peer() as inner, way_out(outer.authority, resolver=resolver) as egress:
            outer.script = redirects(307, location.format(inner=inner.port, outer=outer.authority))
            with pytest.raises(EgressDenied):
                await egress.fetch(Call("GET", outer.url))
            assert (inner.connections, len(outer.requests)) == (0, 1)

    @pytest.mark.parametrize("status", STATUSES)
    async def test_are_not_called_with_any_status(self, status: int) -> None:
        async with peer() as outer, peer() as inner, way_out(outer.authority) as egress:
            outer.script = redirects(status, inner.url)
            with pytest.raises(EgressDenied):
                await egress.fetch(Call("GET", outer.url))
            assert inner.connections == 0

    @pytest.mark.parametrize("location", ["http://[::x]/", "http://a:b:c/", "http://\u00e9\u0000/"])
    async def test_that_are_no_url_are_the_other_sides_failure(self, location: str) -> None:
        async with peer(redirects(302, location)) as other, way_out(other.authority) as egress:
            with pytest.raises(EgressFailed):
                await egress.fetch(Call("GET", other.url))

    async def test_are_several_at_once(self) -> None:
        answer = ok(status="302 Found", headers=["Location: /a", "Location: /b"])
        async with peer(says(answer)) as other, way_out(other.authority) as egress:
            with pytest.raises(EgressFailed, match="several"):
                await egress.fetch(Call("GET", other.url))

    async def test_are_checked_by_what_their_name_means_then(self) -> None:
        resolver = names(["127.0.0.1"], ["127.0.0.2"])
        async with peer() as outer, peer(host="127.0.0.2", port=outer.port) as inner:
            outer.script = says(ok(status="302 F", headers=["Location: /again", "Connection: close"]))
            async with way_out(outer.authority, resolver=resolver) as egress:
                with pytest.raises(EgressDenied):
                    await egress.fetch(Call("GET", f"http://{NAME}:{outer.port}/"))
        assert (len(outer.requests), inner.connections, len(resolver.asked)) == (1, 0, 2)
