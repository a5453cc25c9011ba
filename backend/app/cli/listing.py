"""`orrery runs list`, and runs that are named by the beginning of their id."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from rich.console import Console

from app.cli.client import ApiError, Client, Unreachable
from app.core.errors import BadRequest, NotFound

_COLUMNS = ("run", "status", "agent", "created", "seconds", "mode", "error")
"""In a narrow terminal the last ones give way."""
_ID_LENGTH = 36
_LEAST_LENGTH = 6
_BEGINNING = re.compile(rf"[0-9a-f-]{{{_LEAST_LENGTH},{_ID_LENGTH}}}")
_SHOWN = 10


def show_runs(console: Console, runs: Sequence[dict[str, Any]], agents: dict[str, str]) -> None:
    """One line per run, with the slugs `agents` by id. Lines are cut where a terminal ends, ids never."""
    rows = [_COLUMNS, *(_row(run, agents) for run in runs)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        if console.is_terminal and len(line) > console.width:
            line = line[: max(console.width - 1, _ID_LENGTH)] + "…"
        console.print(line, markup=False, soft_wrap=True)


def _row(run: dict[str, Any], agents: dict[str, str]) -> tuple[str, ...]:
    created = datetime.fromisoformat(run["created_at"]).astimezone()
    error = f"{run['error']['code']}: {run['error']['message']}" if run["error"] else ""
    return (
        run["id"],
        run["status"],
        agents[run["agent_id"]],
        f"{created:%Y-%m-%d %H:%M:%S}",
        _took(run),
        run["made_by"] or run["mode"],
        " ".join(error.split()),
    )


def _took(run: dict[str, Any]) -> str:
    if not run["started_at"] or not run["finished_at"]:
        return ""
    began, ended = (datetime.fromisoformat(run[name]) for name in ("started_at", "finished_at"))
    return f"{(ended - began).total_seconds():.2f}"


def agents_of(client: Client, runs: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The slugs of their agents, by id; of one that is being deleted, that."""
    return {agent: _slug(client, agent) for agent in {run["agent_id"] for run in runs}}


def _slug(client: Client, agent: str) -> str:
    try:
        return str(client.get(f"/agents/{agent}")["slug"])
    except Unreachable:
        raise
    except ApiError as error:
        if error.code != "not_found":
            raise
        return "(deleted)"


def whole_id(client: Client, name: str) -> str:
    """The id of the run that `name` is, or begins; what was cut off may be an ellipsis.

    Raises `BadRequest` where it begins none or several, which are listed.
    """
    beginning = name.strip().rstrip("….").lower()
    if _is_id(name):
        return name
    if not _BEGINNING.fullmatch(beginning):
        raise BadRequest(
            f"RUN is {name!r}: it is a run's id, or at least {_LEAST_LENGTH} characters that begin one "
            "(`orrery runs list` shows them)."
        )
    found = [run for run in _mentioning(client, beginning) if run["id"].startswith(beginning)]
    if not found:
        raise NotFound(f"RUN is {name!r}: no run's id begins so (`orrery runs list` shows them).")
    if len(found) > 1:
        raise BadRequest(f"RUN is {name!r}, which begins the ids of several runs: {_choices(found)}.")
    return str(found[0]["id"])


def _is_id(name: str) -> bool:
    try:
        UUID(name)
    except ValueError:
        return False
    return True


def _mentioning(client: Client, text: str) -> Iterator[dict[str, Any]]:
    """Runs whose id begins with `text`, among those that have it in their input or output."""
    cursor: dict[str, str] = {}
    while True:
        page = client.get("/runs", q=text, limit=200, **cursor)
        yield from page["items"]
        if not page["next_cursor"]:
            return
        cursor = {"cursor": page["next_cursor"]}


def _choices(found: Sequence[dict[str, Any]]) -> str:
    shown = ", ".join(run["id"] for run in found[:_SHOWN])
    return shown + (f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")
