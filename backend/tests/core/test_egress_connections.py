"""Connections: looked up once, pinned, verified by name under TLS, and closed when the caller goes."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from app.core.egress import Call, EgressDenied, EgressFailed, EgressTimeout, system_trust
from tests.core.peers import (
    NAME,
    QUICK,
    Names,
    hangs_up_after,
    in_turn,
    names,
    ok,
    peer,
    redirects,
    repeats,
    says,
    way_out,
)

HEAD = b"HTTP/1.1 200 OK\r\n"


class TestKeptConnection:
    """That the server closes at the moment that it is used."""

    BROKEN = (says(ok(b"first")), hangs_up_after(), says(ok(b"again")))

    @pytest.mark.parametrize(
        ("method", "headers"), [("GET", {}), ("PUT", {}), ("POST", {"Idempotency-Key": "order-17"})]
    )
    async def test_is_replaced_where_the_request_may_be_repeated(
        self, method: str, headers: dict[str, str]
    ) -> None:
        async with peer(in_turn(*self.BROKEN)) as there, way_out(there.authority) as egress:
            await egress.fetch(Call("GET", there.url))
            reply = await egress.fetch(Call(method, there.url, headers=headers, body=b"x"))
        assert (reply.body, there.connections, len(there.requests)) == (b"again", 2, 3)

    async def test_fails_what_may_not_be_repeated(self) -> None:
        async with peer(in_turn(*self.BROKEN)) as there, way_out(there.authority) as egress:
            await egress.fetch(Call("GET", there.url))
            with pytest.raises(EgressFailed):
                await egress.fetch(Call("POST", there.url, body=b"x"))
            assert len(there.requests) == 2

    async def test_is_replaced_once(self) -> None:
        script = in_turn(says(ok(b"first")), *[hangs_up_after()] * 5)
        async with peer(script) as there, way_out(there.authority) as egress:
            await egress.fetch(Call("GET", there.url))
            with pytest.raises(EgressFailed):
                await egress.fetch(Call("GET", there.url))
            assert len(there.requests) == 3


class TestRebinding:
    async def test_between_two_connections_is_refused(self) -> None:
        resolver = names(["127.0.0.1"], ["127.0.0.2"])
        closing = says(ok(headers=["Connection: close"]))
        async with (
            peer(closing) as outer,
            peer(host="127.0.0.2", port=outer.port) as inner,
            way_out(outer.authority, resolver=resolver) as egress,
        ):
            await egress.fetch(Call("GET", f"http://{NAME}:{outer.port}/"))
            with pytest.raises(EgressDenied):
                await egress.fetch(Call("GET", f"http://{NAME}:{outer.port}/"))
        assert inner.connections == 0

    async def test_does_not_move_a_kept_connection(self) -> None:
        resolver = names(["127.0.0.1"], ["127.0.0.2"])
        async with (
            peer() as outer,
            peer(host="127.0.0.2", port=outer.port) as inner,
            way_out(outer.authority, resolver=resolver) as egress,
        ):
            for _ in range(2):
                await egress.fetch(Call("GET", f"http://{NAME}:{outer.port}/"))
        assert (outer.connections, inner.connections, len(resolver.asked)) == (1, 0, 1)

    async def test_opens_no_kept_connection_to_another_name(self) -> None:
        resolver = Names(public_example=[["127.0.0.1"]], evil_example=[["127.0.0.1"]])
        async with peer() as inner, way_out(f"{NAME}:{inner.port}", resolver=resolver) as egress:
            await egress.fetch(Call("GET", f"http://{NAME}:{inner.port}/"))
            with pytest.raises(EgressDenied):
                await egress.fetch(Call("GET", f"http://evil.example:{inner.port}/"))
            assert len(inner.requests) == 1

    @pytest.mark.parametrize(
        "answers",
        [
            ["127.0.0.1", "127.0.0.2"],
            ["127.0.0.2", "127.0.0.1"],
            ["127.0.0.1", "::1"],
            ["127.0.0.1", "::ffff:127.0.0.2"],
            ["127.0.0.1", "64:ff9b::127.0.0.1"],
            ["127.0.0.1", "fe80::1%lo"],
        ],
    )
    async def test_by_a_mixed_answer_is_refused(self, answers: Sequence[str]) -> None:
        async with peer() as outer, way_out(outer.authority, resolver=names(answers)) as egress:
            with pytest.raises(EgressDenied):
                await egress.fetch(Call("GET", f"http://{NAME}:{outer.port}/"))
            assert outer.connections == 0

    async def test_by_a_redirect_to_oneself_is_refused(self) -> None:
        resolver = names(["127.0.0.1"], ["127.0.0.1", "127.0.0.2"])
        script = says(ok(status="302 F", headers=["Location: /", "Connection: close"]))
        async with peer(script) as outer, way_out(outer.authority, resolver=resolver) as egress:
            with pytest.raises(EgressDenied):
                await egress.fetch(Call("GET", f"http://{NAME}:{outer.port}/"))
            assert outer.connections == 1


class TestLookingUp:
    async def test_that_never_ends_is_a_time_out(self) -> None:
        limits = replace(QUICK, connect_s=0.1)
        async with way_out(resolver=names(None), limits=limits) as egress:
            with pytest.raises(EgressTimeout, match=r"looked up within 0\.1 s"):
                await egress.fetch(Call("GET", f"http://{NAME}/"))

    async def test_without_a_name_server_is_a_failure(self) -> None:
        async with way_out(resolver=names(OSError("no"))) as egress:
            with pytest.raises(EgressFailed, match="no name server"):
                await egress.fetch(Call("GET", f"http://{NAME}/"))

    async def test_of_a_missing_and_of_an_internal_name_look_the_same(self) -> None:
        resolver = Names(missing_example=[()], secrets_example=[["10.0.0.1"]])
        said = []
        async with way_out(resolver=resolver) as egress:
            for name in ("missing", "secrets"):
                with pytest.raises(EgressDenied) as denied:
                    await egress.fetch(Call("GET", f"http://{name}.example/"))
                said.append(denied.value.detail.replace(name, "it"))
        assert said[0] == said[1]

    async def test_of_an_open_and_a_closed_internal_port_look_the_same(self) -> None:
        said = []
        async with peer() as inner, peer() as gone, way_out(resolver=names(["127.0.0.1"])) as egress:
            for port in (inner.port, gone.port):
                with pytest.raises(EgressDenied) as denied:
                    await egress.fetch(Call("GET", f"http://{NAME}:{port}/"))
                said.append(denied.value.detail)
            assert (said[0], inner.connections) == (said[1], 0)


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority of this test, and a server certificate for `NAME`."""

    ca_file: Path
    server: Path

    def server_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.server)
        return context


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    folder = tmp_path_factory.mktemp("tls")
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test CA")])
    now = datetime.datetime.now(datetime.UTC)

    def builder(name: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder(ca_name, name, public, x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )

    ca = (
        builder(ca_name, ca_key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    leaf = (
        builder(x509.Name([]), key.public_key())
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    made = Authority(folder / "ca.pem", folder / "server.pem")
    made.ca_file.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    made.server.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + leaf.public_bytes(serialization.Encoding.PEM)
    )
    return made


@pytest.fixture(scope="module")
def trust(authority: Authority) -> ssl.SSLContext:
    return system_trust(authority.ca_file)


class TestTls:
    async def test_keeps_the_name_in_sni_and_host(self, authority: Authority, trust: ssl.SSLContext) -> None:
        async with (
            peer(tls=authority.server_context()) as other,
            way_out(other.authority, trust=trust) as egress,
        ):
            reply = await egress.fetch(Call("GET", f"https://{NAME}:{other.port}/"))
        assert (reply.body, other.sni) == (b"fine", [NAME])
        assert other.requests[0].headers["host"] == f"{NAME}:{other.port}"

    async def test_refuses_a_certificate_of_another_name(
        self, authority: Authority, trust: ssl.SSLContext
    ) -> None:
        resolver = Names(other_example=[["127.0.0.1"]])
        async with (
            peer(tls=authority.server_context()) as other,
            way_out(other.authority, trust=trust, resolver=resolver) as egress,
        ):
            with pytest.raises(EgressFailed, match="certificate was not accepted"):
                await egress.fetch(Call("GET", f"https://other.example:{other.port}/"))
            assert other.requests == []

    async def test_refuses_a_certificate_of_an_unknown_authority(self, authority: Authority) -> None:
        async with (
            peer(tls=authority.server_context()) as other,
            way_out(other.authority, trust=system_trust()) as egress,
        ):
            with pytest.raises(EgressFailed, match="certificate was not accepted"):
                await egress.fetch(Call("GET", f"https://{NAME}:{other.port}/"))

    async def test_refuses_a_server_that_speaks_none(self) -> None:
        limits = replace(QUICK, connect_s=0.2)
        async with peer() as other, way_out(other.authority) as egress:
            with pytest.raises((EgressFailed, EgressTimeout)):
                await egress.fetch(Call("GET", f"https://{other.authority}/", limits=limits))

    async def test_that_is_never_answered_leaves_no_connection(self, trust: ssl.SSLContext) -> None:
        limits = replace(QUICK, first_byte_s=0.1)
        async with peer() as other, way_out(other.authority, trust=trust) as egress:
            with pytest.raises(EgressTimeout):
                await egress.fetch(Call("GET", f"https://{NAME}:{other.port}/", limits=limits))
            await other.alone()

    async def test_is_not_given_up_by_a_redirect(self, authority: Authority, trust: ssl.SSLContext) -> None:
        async with (
            peer(tls=authority.server_context()) as secure,
            peer() as plain,
            way_out(secure.authority, plain.authority, trust=trust) as egress,
        ):
            secure.script = redirects(307, plain.url)
            with pytest.raises(EgressDenied, match="from https to http"):
                await egress.fetch(Call("GET", f"https://{NAME}:{secure.port}/"))
            assert plain.connections == 0

    async def test_may_be_taken_up_by_a_redirect(self, authority: Authority, trust: ssl.SSLContext) -> None:
        async with (
            peer(tls=authority.server_context()) as secure,
            peer() as plain,
            way_out(secure.authority, plain.authority, trust=trust) as egress,
        ):
            plain.script = redirects(307, f"https://{NAME}:{secure.port}/")
            assert (await egress.fetch(Call("GET", plain.url))).body == b"fine"


CANCELLED = {
    "the head": says(),
    "the body": says(HEAD + b"Content-Length: 9\r\n\r\n1"),
    "a body that drips": repeats(HEAD + b"Content-Length: 999999\r\n\r\n", b"1", every_s=0.01),
    "a redirect": in_turn(redirects(302, "/"), says()),
}


class TestCancellation:
    @pytest.mark.parametrize("script", CANCELLED.values(), ids=CANCELLED)
    async def test_closes_the_connection(self, script: object) -> None:
        async with (
            peer(script) as other,  # type: ignore[arg-type]
            way_out(other.authority, max_connections=1, share=1) as egress,
        ):
            call = asyncio.create_task(egress.fetch(Call("GET", other.url)))
            while not other.requests:
                await asyncio.sleep(0.005)
            await asyncio.sleep(0.02)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await other.alone()
            other.script = says(ok())
            assert (await egress.fetch(Call("GET", other.url))).status == 200

    async def test_during_the_tls_handshake_closes_the_connection(self, trust: ssl.SSLContext) -> None:
        async with peer() as other, way_out(other.authority, trust=trust) as egress:
            call = asyncio.create_task(egress.fetch(Call("GET", f"https://{NAME}:{other.port}/")))
            while not other.connections:
                await asyncio.sleep(0.005)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await other.alone()

    async def test_while_a_name_is_looked_up_opens_none(self) -> None:
        async with peer() as other, way_out(other.authority, resolver=names(None)) as egress:
            call = asyncio.create_task(egress.fetch(Call("GET", f"http://{NAME}:{other.port}/")))
            await asyncio.sleep(0.05)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert other.connections == 0


class TestClosing:
    async def test_closes_kept_connections(self) -> None:
        async with peer() as other:
            async with way_out(other.authority) as egress:
                await egress.fetch(Call("GET", other.url))
            await other.alone()

    async def test_ends_a_call_that_is_still_on_its_way(self) -> None:
        async with peer(says()) as other:
            async with way_out(other.authority) as egress:
                call = asyncio.create_task(egress.fetch(Call("GET", other.url)))
                while not other.requests:
                    await asyncio.sleep(0.005)
            with pytest.raises(EgressFailed):
                await call
            await other.alone()
