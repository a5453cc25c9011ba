"""The commands that speak with agents."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from app.cli.answering import read_answer, show_citations, show_times
from app.cli.asking import message_input
from app.cli.client import open_client, segment
from app.cli.commands.output import AsJson, console_for
from app.cli.credentials import find_server
from app.core.config import get_settings

cli = typer.Typer()


@cli.command()
def ask(
    question: str,
    agent: Annotated[str, typer.Option(help="Slug or id of a published agent.")] = "handbook",
    as_json: AsJson = False,
) -> None:
    """Ask a published agent and stream its answer with citations."""
    console = console_for(as_json)
    with open_client(find_server(get_settings())) as client:
        message = message_input(client, agent)
        events = client.stream(
            f"/agents/{segment(agent)}/runs", {"input": {message: question}, "mode": "stream"}
        )
        answer = read_answer(events, show=None if as_json else console)
    if as_json:
        body = {"run_id": answer.run_id, "answer": answer.text, "citations": answer.citations}
        typer.echo(json.dumps(body))
        return
    show_citations(console, answer.citations)
    show_times(console, answer.nodes)
