"""Agents as files in git: `agents/<slug>.yaml` in a folder, held against a server and taken into it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from app.agent.graph.issues import InvalidGraph
from app.agent.graph.loading import load_document
from app.cli.client import ApiError, Client, Unreachable, segment
from app.core.errors import AppError, BadRequest
from app.core.slugs import is_slug

AGENTS = "agents"
_MARKS = {"create": "+", "update": "~", "unchanged": "=", "failed": "!"}


@dataclass(frozen=True, slots=True)
class Planned:
    """What taking in one file does or would do: the server's answer, or why it was not asked or refused."""

    file: str
    told: dict[str, Any] | None = None
    error: AppError | None = None

    @property
    def action(self) -> str:
        return str(self.told["action"]) if self.told else "failed"

    @property
    def changes(self) -> bool:
        return self.told is not None and (self.action != "unchanged" or bool(self.told["publishes"]))

    def document(self) -> dict[str, Any]:
        error = {"code": self.error.code, "message": self.error.detail} if self.error else None
        return {"file": self.file, "action": self.action, "error": error, "answer": self.told}


def export(client: Client, folder: Path, *, version: str) -> Iterator[Planned]:
    """Writes every agent that is not archived; of one that was never published, the draft."""
    place = folder / AGENTS
    place.mkdir(parents=True, exist_ok=True)
    for agent in _agents(client):
        if not is_slug(agent["slug"]):
            raise BadRequest(
                f"The server names an agent {agent['slug']!r}, which no file can be named after."
            )
        file = place / f"{agent['slug']}.yaml"
        chosen = version if agent["live_version"] else "draft"
        path = f"/agents/{segment(agent['slug'])}/export?format=yaml&version={chosen}"
        try:
            text = client.text(path)
        except Unreachable:
            raise
        except ApiError as error:
            yield Planned(str(file), error=error)
            continue
        before = file.read_text(encoding="utf-8") if file.exists() else None
        if before != text:
            file.write_text(text, encoding="utf-8")
        action = "unchanged" if before == text else "create" if before is None else "update"
        yield Planned(str(file), {"action": action, "publishes": False, "version": chosen})


def plan(client: Client, folder: Path, *, publish: bool, dry_run: bool) -> Iterator[Planned]:
    """Takes each file into the draft of its agent, or with `dry_run` says what that would do."""
    for file in _files(folder):
        try:
            document = _read(file)
            body = {"document": document, "on_conflict": "update", "publish": publish}
            told = client.post(f"/agents/import?dry_run={str(dry_run).lower()}", body)
        except Unreachable:
            raise
        except (ApiError, InvalidGraph, BadRequest) as error:
            yield Planned(str(file), error=error)
            continue
        refused = _unpublishable(told) if publish else None
        yield Planned(str(file), None if refused else told, refused)


def _unpublishable(told: dict[str, Any]) -> AppError | None:
    if told["valid"]:
        return None
    reasons = "; ".join(issue["message"] for issue in told["issues"] if issue["severity"] == "error")
    return BadRequest(f"It cannot be published: {reasons}.", code="invalid_graph")


def show(console: Console, planned: Sequence[Planned], *, detailed: bool) -> None:
    """A line per file, and with `detailed` a line per change and per name that stands for nothing here."""
    for one in planned:
        publishes = ", publish" if one.told and one.told["publishes"] else ""
        console.print(
            f"{_MARKS[one.action]} {one.file}: {one.action}{publishes}", markup=False, soft_wrap=True
        )
        if one.error is not None:
            console.print(f"    {one.error.detail}", markup=False, soft_wrap=True)
        if detailed and one.told is not None and "changes" in one.told:
            for line in (*one.told["changes"]["summary"], *_unresolved(one.told)):
                console.print(f"    {line}", markup=False, soft_wrap=True)


def _unresolved(told: dict[str, Any]) -> Iterator[str]:
    for bound in told["bindings"]:
        if not bound["resolved"]:
            choices = ", ".join(bound["suggestions"]) or "nothing that would do"
            yield f"? {bound['kind']}/{bound['name']}: there is no {bound['target']!r} here, but: {choices}"


def _agents(client: Client) -> Iterator[dict[str, Any]]:
    cursor: dict[str, str] = {}
    while True:
        page = client.get("/agents", sort="name", limit=200, **cursor)
        yield from page["items"]
        if not page["next_cursor"]:
            return
        cursor = {"cursor": page["next_cursor"]}


def _files(folder: Path) -> list[Path]:
    place = folder / AGENTS
    if not place.is_dir():
        raise BadRequest(f"There is no folder {str(place)!r}: `orrery export {folder}` makes it.")
    return sorted(file for file in place.iterdir() if file.suffix in (".yaml", ".yml", ".json"))


def _read(file: Path) -> dict[str, Any]:
    try:
        document = load_document(file.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise BadRequest(f"{str(file)!r} is not UTF-8 text (byte {error.start}).") from error
    slug = document.get("slug") if isinstance(document, dict) else None
    if slug != file.stem:
        raise BadRequest(f"{str(file)!r} holds the agent {slug!r}: name the file after its slug.")
    return dict(document)
