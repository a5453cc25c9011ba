"""`orrery ingest` while the server goes away and comes back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from rich.console import Console

from app.cli import ingesting
from app.cli.client import ApiError, Client
from app.cli.ingesting import Ingested, ingest

JOB = {"stage": None, "progress": {"done": 1, "total": 1}}
PROBLEM = {"code": "unavailable", "detail": "The database does not answer right now; try again."}


def _ingested(folder: Path, states: Iterator[httpx2.Response | Exception]) -> Ingested:
    """Ingests one file by a server whose job answers as `states` say."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        if request.method == "POST":
            item = {"name": "a.txt", "status": "accepted"}
            return httpx2.Response(202, json={"job_id": "j1", "items": [item]})
        if request.url.path.endswith("/items"):
            return httpx2.Response(200, json={"items": [{"status": "succeeded"}], "next_cursor": None})
        state = next(states)
        if isinstance(state, Exception):
            raise state
        return state

    path = folder / "a.txt"
    path.write_text("Gold.")
    with httpx2.Client(base_url="http://server", transport=httpx2.MockTransport(answer)) as http:
        return ingest(Client(http), "texts", [(path, "a.txt")], console=Console(quiet=True))


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingesting, "_POLL_S", 0)


def test_waits_for_a_server_that_is_started_again(tmp_path: Path) -> None:
    away = [httpx2.ConnectError("refused"), httpx2.ReadError("cut"), httpx2.Response(503, json=PROBLEM)]
    done = _ingested(tmp_path, iter([*away, httpx2.Response(200, json=JOB)]))
    assert (done.ready, done.failures) == (1, [])


def test_says_after_a_while_that_nothing_is_lost(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ingesting, "_PATIENCE_S", -1)
    with pytest.raises(ApiError, match=r"does not answer.* What was accepted is not lost; its jobs: j1\."):
        _ingested(tmp_path, iter([httpx2.ConnectError("refused")]))


def test_gives_up_at_once_where_waiting_would_not_help(tmp_path: Path) -> None:
    refused = httpx2.Response(401, json={"code": "unauthenticated", "detail": "The key has ended."})
    with pytest.raises(ApiError, match=r"^The key has ended\.$"):
        _ingested(tmp_path, iter([refused]))
