"""The commands that publish agents, and keep them as files."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli import agent_files
from app.cli.agent_files import Planned
from app.cli.client import Client, open_client, segment
from app.cli.commands.output import AsJson, console_for
from app.cli.credentials import find_server
from app.core.config import get_settings

cli = typer.Typer()
agents = typer.Typer(no_args_is_help=True, help="Versions of agents, and the archive.")
cli.add_typer(agents, name="agents")
_CHANGES = 2
Folder = Annotated[Path, typer.Argument(help="Holds agents/<slug>.yaml.")]
Agent = Annotated[str, typer.Argument(help="Slug or id.")]
Publish = Annotated[bool, typer.Option("--publish", help="Make what is in the files live, too.")]
Note = Annotated[str, typer.Option(help="What this version is about.")]


@cli.command()
def export(
    folder: Folder,
    version: Annotated[str, typer.Option(help="live or draft.")] = "live",
    as_json: AsJson = False,
) -> None:
    """Write every agent into a folder, as YAML. Of one that was never published, the draft.

    Exit codes: 0 all are written, 1 one could not be.
    """
    with open_client(find_server(get_settings())) as client:
        _end(agent_files.export(client, folder, version=version), as_json=as_json)


@cli.command()
def diff(folder: Folder, as_json: AsJson = False) -> None:
    """Show how the drafts on the server differ from the files.

    Exit codes: 0 not at all, 2 they do, 1 a file could not be read or compared.
    """
    with open_client(find_server(get_settings())) as client:
        found = agent_files.plan(client, folder, publish=False, dry_run=True)
        _end(found, as_json=as_json, detailed=True, changes=_CHANGES)


@cli.command()
def plan(folder: Folder, publish: Publish = False, as_json: AsJson = False) -> None:
    """Show what `apply` would do.

    Exit codes: 0 nothing, 2 something, 1 something that would fail.
    """
    with open_client(find_server(get_settings())) as client:
        found = agent_files.plan(client, folder, publish=publish, dry_run=True)
        _end(found, as_json=as_json, detailed=True, changes=_CHANGES)


@cli.command()
def apply(folder: Folder, publish: Publish = False, as_json: AsJson = False) -> None:
    """Make the drafts on the server what the files say; agents without a file are left alone.

    Exit codes: 0 done, 1 a file could not be applied; the others are.
    """
    with open_client(find_server(get_settings())) as client:
        _end(agent_files.plan(client, folder, publish=publish, dry_run=False), as_json=as_json)


@agents.command()
def versions(agent: Agent, as_json: AsJson = False) -> None:
    """List the newest versions: who published them, when, and what for. The first one is live."""
    with open_client(find_server(get_settings())) as client:
        found = client.get(f"/agents/{segment(agent)}/versions", limit=50)
    if as_json:
        typer.echo(json.dumps(found))
        return
    console = console_for(as_json)
    for version in found["items"]:
        author = version["author"] or {}
        who = author.get("name") or author.get("email") or author.get("id") or ""
        line = f"{version['version']:>4}  {version['created_at'][:19]}  {who}  {version['note']}"
        console.print(line.rstrip(), markup=False, soft_wrap=True)


@agents.command()
def publish(agent: Agent, note: Note = "", as_json: AsJson = False) -> None:
    """Make the draft live."""
    _version(agent, "publish", {"note": note}, as_json=as_json)


@agents.command()
def rollback(
    agent: Agent,
    version: Annotated[int, typer.Argument(help="The number of the version to bring back.")],
    note: Note = "",
    as_json: AsJson = False,
) -> None:
    """Make an earlier version live again, as a new one."""
    _version(agent, "rollback", {"version": version, "note": note}, as_json=as_json)


@agents.command()
def archive(
    agent: Agent,
    undo: Annotated[bool, typer.Option("--undo", help="Take it out again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put an agent away: it is neither run, changed nor listed, and can still be read."""
    verb = "unarchive" if undo else "archive"
    told = _posted(agent, verb, None)
    _tell(told, f"{told['slug']}: {verb}d", as_json=as_json)


def _version(agent: str, verb: str, body: dict[str, Any], *, as_json: bool) -> None:
    told = _posted(agent, verb, body)
    _tell(told, f"{agent}: version {told['version']} is live", as_json=as_json)


def _posted(agent: str, verb: str, body: dict[str, Any] | None) -> dict[str, Any]:
    with open_client(find_server(get_settings())) as client:
        return dict(_post(client, f"/agents/{segment(agent)}/{verb}", body))


def _post(client: Client, path: str, body: dict[str, Any] | None) -> Any:
    return client.post(path, body) if body is not None else client.post(path)


def _tell(told: dict[str, Any], line: str, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(told))
    else:
        console_for(as_json).print(line, markup=False, soft_wrap=True)


def _end(found: Iterable[Planned], *, as_json: bool, detailed: bool = False, changes: int = 0) -> None:
    """Shows what was found, and ends with the code for it."""
    planned = list(found)
    if as_json:
        typer.echo(json.dumps({"agents": [one.document() for one in planned]}))
    else:
        agent_files.show(console_for(as_json), planned, detailed=detailed)
    if any(one.error for one in planned):
        raise typer.Exit(1)
    if changes and any(one.changes for one in planned):
        raise typer.Exit(changes)
