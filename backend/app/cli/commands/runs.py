"""`orrery runs`: what agents did, and what they are doing."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from app.cli.client import open_client
from app.cli.commands.output import AsJson, console_for
from app.cli.credentials import find_server
from app.cli.listing import agents_of, show_runs, whole_id
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
    run: Annotated[str, typer.Argument(help="The run's id, or at least 6 characters that begin it.")],
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
    with undecided(), open_client(find_server(get_settings())) as client:
        run_id = whole_id(client, run)
    following = Tail(
        lambda: open_client(find_server(get_settings())),
        run_id,
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
        again = f"orrery runs tail {run_id} --after {following.seen}"
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
        agents = {} if as_json else agents_of(client, found["items"])
    if as_json:
        typer.echo(json.dumps(found))
    else:
        show_runs(console_for(as_json), found["items"], agents)
