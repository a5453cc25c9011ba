"""`orrery inbox` and `orrery answer`: what runs ask people, and the answers."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from app.cli.client import open_client, segment
from app.cli.commands.output import AsJson, console_for
from app.cli.credentials import find_server
from app.cli.inbox import data_of, open_questions, question_named, show_question
from app.core.config import get_settings

cli = typer.Typer()


@cli.command()
def inbox(
    mine: Annotated[bool, typer.Option("--mine", help="Only what is for me, or for everybody.")] = False,
    agent: Annotated[str | None, typer.Option(help="Only questions of this agent: slug or id.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what runs ask, the newest first."""
    console = console_for(as_json)
    given = {"assignee": "me" if mine else None, "agent": agent}
    wanted = {name: value for name, value in given.items() if value}
    with open_client(find_server(get_settings())) as client:
        found = list(open_questions(client, **wanted))
    if as_json:
        typer.echo(json.dumps(found))
        return
    for asked in found:
        show_question(console, asked)
    if not found:
        console.print("nothing is asked")


@cli.command()
def answer(
    question: Annotated[str, typer.Argument(help="Its id, or at least 6 characters that begin it.")],
    choice: Annotated[str | None, typer.Option(help="One of its choices, if it has any.")] = None,
    data: Annotated[str | None, typer.Option(help="A JSON object that fits its form.")] = None,
    as_json: AsJson = False,
) -> None:
    """Answer a question, once. The run goes on with it."""
    console = console_for(as_json)
    body: dict[str, Any] = {"choice": choice} if choice is not None else {}
    if data is not None:
        body["data"] = data_of(data)
    with open_client(find_server(get_settings())) as client:
        asked = question_named(client, question)
        path = f"/runs/{segment(asked['run_id'])}/interrupts/{segment(asked['id'])}"
        closed = client.post(path, body)
    if as_json:
        typer.echo(json.dumps(closed))
        return
    follow = f"to follow the run: orrery runs tail {closed['run_id']}"
    console.print(f"answered; {follow}", markup=False, soft_wrap=True)
