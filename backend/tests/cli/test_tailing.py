"""`orrery runs`: a run followed to its end, whatever becomes of the connection; and the list of runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from typing import Any

import httpx2
import pytest
from rich.console import Console

from app.agent.core.events import PAYLOADS
from app.cli import storytelling, tailing
from app.cli.client import ApiError, Client, Unreachable, event_data
from app.cli.tailing import Tail, succeeded
from app.core.errors import Misconfigured
from tests.cli.conftest import Command
from tests.graphs import HELLO_GRAPH, asking_graph
from tests.trust.serving import Platform

LOG = [
    {"run_id": "r", "seq": 1, "event": {"type": "RUN_STARTED"}},
    {"run_id": "r", "seq": 2, "event": {"type": "TEXT_MESSAGE_CONTENT", "delta": "one\u2028two\x85"}},
    {"run_id": "r", "seq": 3, "event": {"type": "TEXT_MESSAGE_CONTENT", "delta": " three"}},
    {"run_id": "r", "seq": 4, "event": {"type": "RUN_FINISHED", "result": {}}},
]
DONE = {"status": "succeeded", "finished_at": "2026-01-01T00:00:00Z"}


def framed(envelope: dict[str, Any]) -> bytes:
    data = json.dumps(envelope, ensure_ascii=False)
    return f"id: {envelope['seq']}\nevent: {envelope['event']['type']}\ndata: {data}\n\n".encode()


class Cut(httpx2.SyncByteStream):
    """A body that breaks off after `sent`."""

    def __init__(self, sent: bytes) -> None:
        self.sent = sent

    def __iter__(self) -> Iterator[bytes]:
        yield self.sent
        raise httpx2.ReadError("cut")


class Server:
    """Serves `LOG` as the API does; each connection breaks off after the next number of bytes of `cuts`."""

    def __init__(self, cuts: Sequence[int] = (), *, run: dict[str, Any] = DONE) -> None:
        self.cuts, self.run, self.asked = list(cuts), run, list[int]()

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        if not request.url.path.endswith("/events"):
            return httpx2.Response(200, json=self.run)
        after = int(request.headers["Last-Event-ID"])
        self.asked.append(after)
        body = b"".join(framed(envelope) for envelope in LOG if envelope["seq"] > after)
        if self.cuts:
            return httpx2.Response(200, stream=Cut(body[: self.cuts.pop(0)]))
        return httpx2.Response(200, content=body)

    @contextmanager
    def connect(self) -> Iterator[Client]:
        with httpx2.Client(base_url="http://server", transport=httpx2.MockTransport(self.answer)) as http:
            yield Client(http)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tailing, "_PAUSES_S", (0.0,))


def test_every_event_of_ours_has_its_line() -> None:
    assert set(PAYLOADS) <= set(storytelling._TOLD)


def test_tool_calls_are_told_once_their_arguments_are_whole() -> None:
    console = Console(file=(written := StringIO()), width=200)
    story = storytelling.Story(console)
    for event in (
        {"type": "TEXT_MESSAGE_CONTENT", "delta": "Let me look."},
        {"type": "TOOL_CALL_START", "toolCallId": "1", "toolCallName": "add"},
        {"type": "TOOL_CALL_START", "toolCallId": "2", "toolCallName": "find"},
        {"type": "TOOL_CALL_ARGS", "toolCallId": "1", "delta": '{"a": '},
        {"type": "TOOL_CALL_ARGS", "toolCallId": "2", "delta": "[red]"},
        {"type": "TOOL_CALL_ARGS", "toolCallId": "1", "delta": "2}"},
        {"type": "TOOL_CALL_END", "toolCallId": "1"},
        {"type": "TOOL_CALL_END", "toolCallId": "2"},
        {"type": "TOOL_CALL_RESULT", "toolCallId": "1", "content": "x" * 300},
    ):
        story.tell({"event": event})
    lines = written.getvalue().splitlines()
    assert lines[:3] == ["Let me look.", '⚒ add {"a": 2}', "⚒ find [red]"]
    assert lines[3].startswith("  ⤷ xxx")
    assert len(lines[3]) < 210


class TestNodeLine:
    def told(self, **given: Any) -> str:
        node = {"node_id": "write", "status": "succeeded", "attempts": 1, "duration_ms": 1.0} | given
        console = Console(file=StringIO(), width=200)
        event = {"type": "CUSTOM", "name": "node.finished", "value": node}
        storytelling.Story(console).tell({"event": event})
        return console.file.getvalue()

    def test_says_why_an_answer_ended_early(self) -> None:
        assert "✓ write 1.0 ms finish_reason length" in self.told(finish_reason="length")

    def test_says_so_of_a_failure_too(self) -> None:
        error = {"code": "content_filter", "message": "withheld"}
        said = self.told(finish_reason="content_filter", status="failed", error=error)
        assert "✗ write 1.0 ms finish_reason content_filter content_filter: withheld" in said

    @pytest.mark.parametrize("given", [{}, {"finish_reason": "stop"}])
    def test_says_nothing_of_an_answer_that_is_complete(self, given: dict[str, str]) -> None:
        assert "finish_reason" not in self.told(**given)


class TestTail:
    @pytest.mark.parametrize("cut", range(0, sum(len(framed(envelope)) for envelope in LOG), 7))
    def test_shows_each_event_once_wherever_it_is_cut(self, cut: int) -> None:
        assert list(Tail(Server([cut]).connect, "r").events()) == LOG

    def test_takes_up_where_each_of_many_connections_broke(self) -> None:
        server = Server([len(framed(envelope)) + 5 for envelope in LOG[:3]])
        assert list(Tail(server.connect, "r").events()) == LOG
        assert server.asked == [0, 1, 2, 3]

    def test_begins_behind_the_event_that_was_seen(self) -> None:
        assert list(Tail(Server().connect, "r", seen=2).events()) == LOG[2:]

    def test_behind_the_last_event_knows_the_end_from_the_run(self) -> None:
        tail = Tail(Server().connect, "r", seen=4)
        assert list(tail.events()) == []
        assert succeeded(tail, None)

    def test_finds_the_server_anew_while_none_runs(self) -> None:
        server = Server([len(framed(LOG[0]))])
        found: list[Exception | None] = [
            None,
            Misconfigured("No server is running."),
            Unreachable("away"),
            None,
        ]
        told: list[str] = []

        @contextmanager
        def connect() -> Iterator[Client]:
            if error := found.pop(0):
                raise error
            with server.connect() as client:
                yield client

        assert list(Tail(connect, "r", away=told.append).events()) == LOG
        assert len(told) == 1

    def test_gives_up_after_a_while_and_says_how_to_go_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tailing, "_PATIENCE_S", -1)
        tail = Tail(Server([len(framed(LOG[0]))]).connect, "r")
        with pytest.raises(ApiError, match=r"orrery runs tail r --after 1$"):
            list(tail.events())

    def test_does_not_wait_for_a_server_that_it_never_met(self) -> None:
        @contextmanager
        def nobody() -> Iterator[Client]:
            raise Misconfigured("No server is running.")
            yield

        with pytest.raises(Misconfigured):
            list(Tail(nobody, "r").events())


def test_events_are_read_whatever_their_text_holds_and_however_they_are_cut() -> None:
    body = b": heartbeat\n\n" + b"".join(map(framed, LOG)) + b"data: cut off"
    for size in (1, 2, 3, 5, len(body)):
        chunks = (body[at : at + size] for at in range(0, len(body), size))
        assert [json.loads(data) for data in event_data(chunks)] == LOG


@pytest.fixture(scope="session")
def run(served: Platform) -> dict[str, Any]:
    """A run that has succeeded."""
    with served.client() as client:
        client.post("/agents", json={"name": "Greeter", "graph": HELLO_GRAPH}).raise_for_status()
        client.post("/agents/greeter/publish").raise_for_status()
        done = client.post("/agents/greeter/runs", json={"input": {"name": "Ada [/red]"}}).raise_for_status()
    return dict(done.json())


class TestCommand:
    def test_prints_the_log_line_by_line_as_json(
        self, command: Command, served: Platform, run: dict[str, Any]
    ) -> None:
        done = command(["runs", "tail", run["id"], "--json"], served.data_dir)
        assert done.returncode == 0, done.stderr
        with served.client() as client:
            log = client.get(f"/runs/{run['id']}/events").text
        stored = [line[6:] for line in log.splitlines() if line.startswith("data: ")]
        assert [json.loads(line) for line in done.stdout.splitlines()] == [json.loads(e) for e in stored]

    def test_tells_people_what_happens(self, command: Command, served: Platform, run: dict[str, Any]) -> None:
        done = command(["runs", "tail", run["id"]], served.data_dir)
        lines = done.stdout.splitlines()
        assert lines[0] == f"run {run['id']}"
        assert "→ greet (template)" in lines
        assert lines[-1] == 'succeeded {"text": "Hello, Ada [/red]!"}'

    def test_after_its_last_event_tells_the_end(
        self, command: Command, served: Platform, run: dict[str, Any]
    ) -> None:
        done = command(["runs", "tail", run["id"], "--after", "1000"], served.data_dir)
        assert (done.returncode, done.stdout) == (0, 'succeeded {"text": "Hello, Ada [/red]!"}\n')

    def test_ends_with_1_where_the_run_failed(self, command: Command, served: Platform) -> None:
        with served.client() as client:
            client.post("/collections", json={"name": "Gone", "slug": "gone"}).raise_for_status()
            graph = asking_graph("default-chat", collection="gone")
            client.post("/agents", json={"name": "Seeker", "graph": graph}).raise_for_status()
            client.post("/agents/seeker/publish").raise_for_status()
            client.delete("/collections/gone").raise_for_status()
            failed = client.post("/agents/seeker/runs", json={"input": {"name": "Ada"}}).json()
        assert failed["status"] == "failed", failed
        done = command(["runs", "tail", failed["id"]], served.data_dir)
        assert done.returncode == 1
        assert done.stdout.splitlines()[-1].startswith("failed ")

    def test_of_an_unknown_run_says_so_and_ends_with_2(self, command: Command, served: Platform) -> None:
        unknown = "019f0000-0000-7000-8000-000000000000"
        done = command(["runs", "tail", unknown], served.data_dir)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"Error: There is no run '{unknown}' here.\n"

    @pytest.mark.parametrize("name", ["x", "01a20", "not-an-id", "%"])
    def test_of_what_is_no_id_says_so(self, command: Command, served: Platform, name: str) -> None:
        done = command(["runs", "tail", name], served.data_dir)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"Error: RUN is {name!r}: it is a run's id, or at least 6 characters")

    def test_list_finds_runs_by_text(self, command: Command, served: Platform, run: dict[str, Any]) -> None:
        found = command(["runs", "list", "--query", "ada [/RED]", "--json"], served.data_dir)
        assert found.returncode == 0, found.stderr
        assert [item["id"] for item in json.loads(found.stdout)["items"]] == [run["id"]]
        shown = command(["runs", "list", "--agent", "greeter"], served.data_dir, COLUMNS="200")
        assert run["id"] in shown.stdout
