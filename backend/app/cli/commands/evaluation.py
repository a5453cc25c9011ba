"""`orrery eval`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from app.cli.client import open_client
from app.cli.commands.output import AsJson, console_for
from app.cli.credentials import find_server
from app.cli.evaluating import Mode, default_collection, evaluate, show
from app.cli.retrieval_set import read_retrieval_set
from app.core.config import get_settings

cli = typer.Typer()


@cli.command("eval")
def eval_set(
    folder: Annotated[Path, typer.Argument(help="With corpus.jsonl, queries.jsonl and qrels.tsv.")],
    collection: Annotated[str | None, typer.Option(help="Slug; by default `eval-` and the name.")] = None,
    mode: Annotated[list[Mode] | None, typer.Option(help="Only this; may be repeated.")] = None,
    as_json: AsJson = False,
) -> None:
    """Ingest a retrieval set (BEIR's layout) and measure how well search finds what is relevant."""
    found = read_retrieval_set(folder)
    console = console_for(as_json)
    with open_client(find_server(get_settings())) as client:
        slug = collection or default_collection(found.name)
        measured = evaluate(client, found, collection=slug, modes=mode or list(Mode), console=console)
    if as_json:
        typer.echo(json.dumps(measured.document()))
    else:
        show(console, measured)
