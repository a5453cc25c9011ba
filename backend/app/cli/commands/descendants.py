"""`orrery runs resume`, `fork`, `replay`, `checkpoints`, `timeline`: what can be done with a run that was."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from app.cli.client import Client, open_client, segment
from app.cli.commands.output import AsJson, console_for
from app.cli.commands.runs import cli, runs, tail
from app.cli.credentials import find_server
from app.cli.listing import whole_id
from app.cli.replaying import recorded_runs, replay_all, version_named
from app.cli.timelines import checkpoints_of, show_entry, timeline_of
from app.cli.undecided import undecided
from app.core.config import get_settings
from app.core.errors import BadRequest

__all__ = ["cli"]
Run = Annotated[str, typer.Argument(help="The run's id, or at least 6 characters that begin it.")]
Version = Annotated[str, typer.Option(help="same, live, draft or a number.")]


@runs.command()
def resume(run: Run, version: Version = "same", as_json: AsJson = False) -> None:
    """Go on with a run that failed or was cancelled, in a new one, and follow that. What is done is kept."""
    tail(_made(run, "resume", {"version": version_named(version)}), after=0, as_json=as_json)


@runs.command()
def fork(
    run: Run,
    checkpoint: Annotated[int, typer.Option(min=0, help="See `orrery runs checkpoints`; 0: the beginning.")],
    version: Version = "same",
    as_json: AsJson = False,
) -> None:
    """Go on from a checkpoint of a run in a new one, and follow that."""
    body = {"version": version_named(version), "checkpoint": checkpoint}
    tail(_made(run, "fork", body), after=0, as_json=as_json)


@runs.command()
def replay(
    run: Annotated[list[str] | None, typer.Argument(help="Runs, by id.", show_default=False)] = None,
    agent: Annotated[str | None, typer.Option(help="Instead of runs: the newest of this agent.")] = None,
    newest: Annotated[int, typer.Option("--last", min=1, max=200, help="How many of them.")] = 20,
    version: Version = "same",
    as_json: AsJson = False,
) -> None:
    """Do recorded runs again on their recorded answers, with the network closed, and say which come to
    something else.

    Exit codes: 0 all told the same, 1 some did not, 2 it could not be found out.
    """
    console, results = console_for(as_json), []
    with undecided(), open_client(find_server(get_settings())) as client:
        for result in replay_all(client, _wanted(client, run or [], agent, newest), version):
            results.append(result)
            why = f"  {result.why}" if result.why else ""
            console.print(f"{result.verdict:8}{result.run_id}{why}", markup=False, soft_wrap=True)
    if as_json:
        typer.echo(json.dumps([{"run": r.run_id, "verdict": r.verdict, "why": r.why} for r in results]))
    verdicts = {result.verdict for result in results}
    if verdicts - {"same"}:
        raise typer.Exit(2 if "cannot" in verdicts else 1)


@runs.command()
def checkpoints(run: Run, as_json: AsJson = False) -> None:
    """List the places from which a run can be forked."""
    console = console_for(as_json)
    with open_client(find_server(get_settings())) as client:
        found = list(checkpoints_of(client, whole_id(client, run)))
    if as_json:
        typer.echo(json.dumps(found))
        return
    for one in found:
        line = f"{one['seq']:6}  {one['node_path']} ({one['node_type']})  {one['status']}"
        console.print(line, markup=False, soft_wrap=True)


@runs.command()
def timeline(
    run: Run,
    values: Annotated[bool, typer.Option(help="Also what each node read and gave.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what each node of a run did, in the order in which they began."""
    console = console_for(as_json)
    with open_client(find_server(get_settings())) as client:
        found = timeline_of(client, whole_id(client, run))
    if as_json:
        typer.echo(json.dumps(found))
        return
    for entry in found["items"]:
        show_entry(console, entry, values=values)
    if found["incomplete"]:
        console.print(f"some values are missing: {found['incomplete']}", markup=False, soft_wrap=True)


def _made(run: str, how: str, body: dict[str, Any]) -> str:
    """The id of the new run."""
    with undecided(), open_client(find_server(get_settings())) as client:
        path = f"/runs/{segment(whole_id(client, run))}/{how}"
        return str(client.post(path, {**body, "mode": "background"})["id"])


def _wanted(client: Client, runs: list[str], agent: str | None, newest: int) -> list[str]:
    if bool(runs) == bool(agent):
        raise BadRequest("Name either runs or --agent.")
    found = recorded_runs(client, agent, newest=newest) if agent else [whole_id(client, r) for r in runs]
    if not found:
        raise BadRequest(f"The agent {agent!r} has no run that has ended.")
    return found
