"""The commands that fill and search collections."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from app.cli.client import open_client
from app.cli.commands.output import AsJson, console_for
from app.cli.credentials import find_server
from app.cli.ingesting import collect_files, ensure_collection
from app.cli.ingesting import ingest as ingest_files
from app.core.config import get_settings

cli = typer.Typer()


@cli.command()
def ingest(
    paths: Annotated[list[Path], typer.Argument(help="Files and folders.")],
    collection: Annotated[str, typer.Option(help="Slug; created if it is not there.")] = "documents",
    as_json: AsJson = False,
) -> None:
    """Put files into a collection and wait until they can be searched."""
    console = console_for(as_json)
    with open_client(find_server(get_settings())) as client:
        files = collect_files(paths)
        ensure_collection(client, collection)
        done = ingest_files(client, collection, files, console=console)
    if as_json:
        failures = [{"name": name, "message": message} for name, message in done.failures]
        typer.echo(json.dumps({"ready": done.ready, "unchanged": done.unchanged, "failures": failures}))
    else:
        console.print(f"{done.ready} ready, {done.unchanged} unchanged, {len(done.failures)} failed")
        for name, message in done.failures:
            console.print(f"  {name}: {message}", markup=False)
    if done.failures:
        raise typer.Exit(1)


@cli.command()
def search(
    query: str,
    collection: Annotated[list[str] | None, typer.Option(help="Slug; may be repeated.")] = None,
    mode: Annotated[str, typer.Option(help="hybrid, dense or keyword.")] = "hybrid",
    top_k: Annotated[int, typer.Option(help="How many results.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Search collections."""
    body = {"collections": collection or ["documents"], "query": query, "mode": mode, "top_k": top_k}
    with open_client(find_server(get_settings())) as client:
        found = client.post("/search", body)
    if as_json:
        typer.echo(json.dumps(found))
        return
    console = console_for(as_json)
    table = Table("score", "document", "page", "text", box=None)
    for item in found["items"]:
        text = " ".join(item["text"].split())
        row = (f"{item['score']:.4f}", item["title"], str(item["page"] or ""), text[:160])
        table.add_row(*map(escape, row))
    console.print(table)
