"""`orrery runs replay`: recorded runs done again, and which of them come to something else."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from app.cli.client import ApiError, Client, segment
from app.core.errors import BadRequest

_DIVERGED = "replay_diverged"
_LOOK_EVERY_S = 0.2
_REFUSALS = ("not_recorded", "not_finished", "log_dropped", "invalid_input", "invalid_graph")
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Replayed:
    """`why` says what is different, or why it could not be found out."""

    run_id: str
    verdict: Literal["same", "differs", "cannot"]
    why: str | None = None


def recorded_runs(client: Client, agent: str, *, newest: int) -> list[str]:
    """The ids of the agent's newest runs that have ended and are no replays themselves."""
    found: list[str] = []
    cursor: dict[str, str] = {}
    while len(found) < newest:
        page = client.get("/runs", agent=agent, status=["succeeded", "failed"], limit=200, **cursor)
        found += [run["id"] for run in page["items"] if run["made_by"] != "replay"]
        if not page["next_cursor"]:
            break
        cursor = {"cursor": page["next_cursor"]}
    return found[:newest]


def replay_all(client: Client, runs: Sequence[str], version: str) -> Iterator[Replayed]:
    """One after the other. `version` is `same`, `live`, `draft` or a number."""
    wanted = version_named(version)
    for run_id in runs:
        try:
            made = client.post(f"/runs/{segment(run_id)}/replay", {"version": wanted, "mode": "wait"})
        except ApiError as refused:
            if refused.code not in _REFUSALS:
                raise
            yield Replayed(run_id, "cannot", refused.detail)
        else:
            yield _judged(client.get(f"/runs/{segment(run_id)}"), _ended(client, made))


def _judged(run: Json, replay: Json) -> Replayed:
    error = replay["error"] or {}
    if error.get("code") == _DIVERGED:
        return Replayed(run["id"], "differs", error["message"])
    then = (run["error"] or {}).get("code")
    if (replay["status"], error.get("code")) == (run["status"], then):
        return Replayed(run["id"], "same")
    why = f"the replay {replay['status']}: {error.get('code')}: {error.get('message')}"
    return Replayed(run["id"], "cannot", why)


def version_named(name: str) -> str | int:
    """As the API takes it. Raises `BadRequest`."""
    if name in ("same", "live", "draft"):
        return name
    if name.isdecimal():
        return int(name)
    raise BadRequest(f"--version is {name!r}: it is same, live, draft or a number.")


def _ended(client: Client, run: Json) -> Json:
    while run["finished_at"] is None:
        time.sleep(_LOOK_EVERY_S)
        run = client.get(f"/runs/{segment(run['id'])}")
    return run
