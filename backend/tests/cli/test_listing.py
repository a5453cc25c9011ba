"""`orrery runs list` in narrow and wide places, and runs named by the beginning of their id."""

from __future__ import annotations

import io
from typing import Any

import httpx2
import pytest
from rich.console import Console

from app.cli.client import Client
from app.cli.listing import agents_of, show_runs
from tests.cli.conftest import Command
from tests.graphs import HELLO_GRAPH
from tests.trust.serving import Platform

RUN = {
    "id": "01a2071b-713d-754a-8d5e-1c2d3e4f5a6b",
    "agent_id": "a",
    "status": "failed",
    "mode": "background",
    "made_by": None,
    "error": {"code": "timeout", "message": "The run took longer\nthan [red]600 s[/red]."},
    "created_at": "2026-01-01T00:00:00Z",
    "started_at": "2026-01-01T00:00:01Z",
    "finished_at": "2026-01-01T00:00:03.5Z",
}


def shown(*, width: int, terminal: bool) -> list[str]:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=terminal, highlight=False)
    show_runs(console, [RUN], {"a": "support-assistant"})
    return out.getvalue().splitlines()


class TestTable:
    @pytest.mark.parametrize("width", [20, 40, 80, 120])
    def test_has_ids_in_full_however_narrow_the_terminal(self, width: int) -> None:
        _, line = shown(width=width, terminal=True)
        assert line.startswith(RUN["id"])
        assert len(line) <= max(width, len(RUN["id"]) + 1)

    def test_has_status_and_agent_in_80_columns(self) -> None:
        _, line = shown(width=80, terminal=True)
        assert line.split()[1:3] == ["failed", "support-assistant"]

    def test_is_not_cut_where_it_is_no_terminal(self) -> None:
        _, line = shown(width=80, terminal=False)
        assert line.endswith("  2.50     background  timeout: The run took longer than [red]600 s[/red].")


def started_runs(client: httpx2.Client, count: int) -> list[dict[str, Any]]:
    client.post("/agents", json={"name": "Listed", "slug": "listed", "graph": HELLO_GRAPH})
    body = {"input": {"name": "Ada"}, "version": "draft"}
    return [client.post("/agents/listed/runs", json=body).raise_for_status().json() for _ in range(count)]


@pytest.fixture(scope="module")
def runs(served: Platform) -> list[dict[str, Any]]:
    """Two that have succeeded, one right after the other."""
    with served.client() as client:
        return started_runs(client, 2)


class TestList:
    def test_piped_has_whole_ids_and_the_agent(
        self, command: Command, served: Platform, runs: list[dict[str, Any]]
    ) -> None:
        done = command(["runs", "list", "--agent", "listed"], served.data_dir, COLUMNS="80")
        assert done.returncode == 0, done.stderr
        rows = [line.split() for line in done.stdout.splitlines()]
        assert [row[:3] for row in rows[1:]] == [[run["id"], "succeeded", "listed"] for run in reversed(runs)]

    def test_of_an_unknown_agent_ends_with_1(self, command: Command, served: Platform) -> None:
        done = command(["runs", "list", "--agent", "nobody"], served.data_dir)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "Error: There is no agent 'nobody' here.\n"


class TestBeginningOfAnId:
    @pytest.mark.parametrize("ending", ["", "…", "..."])
    def test_that_is_one_run_s_is_followed(
        self, command: Command, served: Platform, runs: list[dict[str, Any]], ending: str
    ) -> None:
        done = command(["runs", "tail", runs[0]["id"][:30].upper() + ending], served.data_dir)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[0] == f"run {runs[0]['id']}"

    def test_of_several_lists_them(
        self, command: Command, served: Platform, runs: list[dict[str, Any]]
    ) -> None:
        done = command(["runs", "tail", runs[0]["id"][:6]], served.data_dir)
        assert (done.returncode, done.stdout) == (2, "")
        assert "begins the ids of several runs: " in done.stderr
        assert all(run["id"] in done.stderr for run in runs)

    def test_of_none_says_so(self, command: Command, served: Platform) -> None:
        done = command(["runs", "tail", "ffffff"], served.data_dir)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("Error: RUN is 'ffffff': no run's id begins so")


def test_an_agent_that_is_being_deleted_is_called_so() -> None:
    gone = {"code": "not_found", "detail": "There is no agent 'a' here."}
    transport = httpx2.MockTransport(lambda _: httpx2.Response(404, json=gone))
    with httpx2.Client(base_url="http://server", transport=transport) as http:
        assert agents_of(Client(http), [RUN]) == {"a": "(deleted)"}
