"""`orrery runs`: what agents did, and what they are doing."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from app.cli.client import open_client
from app.cli.commands.output import AsJson, console_for
from app.cli.credentials import find_server
from app.cli.storytelling import Story, tell_end
from app.cli.tailing import Tail, succeeded
from app.cli.undecided import undecided
from app.core.config import get_settings

cli = typer.Typer()
runs = typer.Typer(no_args_is_help=True, help="Runs of agents.")
cli.add_typer(runs, name="runs")
_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


@runs.command()
def tail(
    run: Annotated[str, typer.Argument(help="The run's id.")],
    after: Annotated[int, typer.Option(min=0, help="The last event that was seen.")] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print each event's envelope on a line of its own.")
    ] = False,
) -> None:
    """Follow a run until it ends, from its first event or from behind `--after`.

    A lost connection is taken up again where it broke, also with a server that was started again.
    Exit codes: 0 the run succeeded, 1 it failed or was cancelled, 2 it cannot be followed.
    """
    console, aside = console_for(as_json), console_for(True)
    story = Story(console)
    following = Tail(
        lambda: open_client(find_server(get_settings())),
        run,
        seen=after,
        away=lambda why: aside.print(f"waiting: {why}", markup=False, soft_wrap=True),
    )
    last: dict[str, Any] | None = None
    try:
        with undecided():
            for last in following.events():
                if as_json:
                    typer.echo(json.dumps(last, ensure_ascii=False))
                else:
                    story.tell(last)
    except KeyboardInterrupt:
        story.break_line()
        again = f"orrery runs tail {run} --after {following.seen}"
        aside.print(f"The run goes on. To follow it again: {again}", markup=False, soft_wrap=True)
        raise typer.Exit(_INTERRUPTED) from None
    if following.run is not None and not as_json:
        tell_end(console, following.run)
    if not succeeded(following, last):
        raise typer.Exit(1)


@runs.command("list")
def list_(
    agent: Annotated[str | None, typer.Option(help="Only runs of this agent: slug or id.")] = None,
    status: Annotated[list[str] | None, typer.Option(help="Only these; may be repeated.")] = None,
    query: Annotated[str | None, typer.Option(help="Begins the id, or is in the input or output.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many, the newest first.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the newest runs."""
    wanted = {"agent": agent, "status": status, "q": query, "limit": limit}
    with open_client(find_server(get_settings())) as client:
        found = client.get("/runs", **{name: value for name, value in wanted.items() if value})
    if as_json:
        typer.echo(json.dumps(found))
        return
    table = Table("run", "status", "mode", "created", "seconds", "error", box=None)
    for item in found["items"]:
        error = f"{item['error']['code']}: {item['error']['message']}" if item["error"] else ""
        created = datetime.fromisoformat(item["created_at"]).astimezone()
        row = (item["id"], item["status"], item["mode"], f"{created:%Y-%m-%d %H:%M:%S}", _took(item), error)
        table.add_row(*map(escape, row))
    console_for(as_json).print(table)


def _took(run: dict[str, Any]) -> str:
    if not run["started_at"] or not run["finished_at"]:
        return ""
    began, ended = (datetime.fromisoformat(run[name]) for name in ("started_at", "finished_at"))
    return f"{(ended - began).total_seconds():.2f}"
