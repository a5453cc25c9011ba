"""Every command of `orrery`. `--json` prints one JSON document for programs; exit code 1 is a failure."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from app import __version__
from app.cli.answering import read_answer, show_citations, show_times
from app.cli.client import open_client, segment
from app.cli.crash import crashes_noted
from app.cli.credentials import find_server, save_credentials
from app.cli.demo import run_demo
from app.cli.evaluating import Mode, default_collection, evaluate, show
from app.cli.ingesting import collect_files, ensure_collection
from app.cli.ingesting import ingest as ingest_files
from app.cli.keys import create_key
from app.cli.retrieval_set import read_retrieval_set
from app.cli.rotating import rotate_secrets
from app.cli.serve import migrate_explained
from app.cli.serve import serve as serve_platform
from app.cli.worker_process import worker_arguments
from app.core.config import Settings, get_settings
from app.core.logging import configure_logging
from app.db.failures import explained
from app.embedded import open_services, read_services_file
from app.resources import demanded, process_name
from app.services.auth_service import Bootstrapped

cli = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
keys = typer.Typer(no_args_is_help=True, help="API keys.")
cli.add_typer(keys, name="keys")
secrets = typer.Typer(no_args_is_help=True, help="Encryption of stored secrets.")
cli.add_typer(secrets, name="secrets")

_INTERRUPTED = 130  # 128 + SIGINT, as shells have it
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
DataDir = Annotated[Path | None, typer.Option(help="Data folder (ORRERY_DATA_DIR, default .orrery).")]


@cli.callback(invoke_without_command=True)
def common(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    data_dir: DataDir = None,
) -> None:
    if data_dir is not None:
        os.environ["ORRERY_DATA_DIR"] = str(data_dir)
    if version:
        typer.echo(__version__)
        raise typer.Exit


@cli.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on (ORRERY_HOST).")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one (ORRERY_PORT).")] = None,
    worker: Annotated[bool, typer.Option(help="Also run a worker for ingestion.")] = True,
) -> None:
    """Run the whole platform: API, runs, ingestion, and the embedded services unless real ones are set."""
    _setting("ORRERY_HOST", host)
    _setting("ORRERY_PORT", port)
    settings = get_settings()
    configure_logging(settings)
    with crashes_noted(settings):
        uvloop.run(serve_platform(settings, worker=worker, started=_announce))


def _announce(url: str, made: Bootstrapped) -> None:
    out = Console(soft_wrap=True, highlight=False)
    out.print(f"Orrery is starting at [bold]{url}[/] (API documentation: {url}/docs)")
    settings = get_settings()
    if made.api_key and settings.bootstrap_api_key is None:
        out.print(f"API key, shown this once: [bold]{made.api_key}[/]")
        out.print("The command line has it already: it is kept in credentials.json of the data folder.")


@cli.command()
def worker() -> None:
    """Run a Celery worker for ingestion against the configured or running services."""
    settings = get_settings()
    found = read_services_file(settings)
    if found is not None:
        os.environ["ORRERY_DATABASE_URL"] = found.database_url
        os.environ["ORRERY_REDIS_URL"] = found.redis_url
    _find_master_key(settings)
    demanded(Settings().database_url, "ORRERY_DATABASE_URL")
    demanded(Settings().redis_url, "ORRERY_REDIS_URL")
    arguments = worker_arguments(f"{process_name(settings).replace(':', '-')}@%h")
    os.execv(arguments[0], arguments)  # noqa: S606  (our own interpreter; signals shall reach Celery)


@cli.command()
def migrate() -> None:
    """Bring the database to this version's schema and create the runtime roles."""
    settings = get_settings()
    configure_logging(settings)
    asyncio.run(_migrate(settings))
    typer.echo("The database has the newest schema.")


async def _migrate(settings: Settings) -> None:
    found = read_services_file(settings)
    if found is not None:
        await migrate_explained(settings, found.migration_url)
        return
    async with open_services(settings) as services:
        await migrate_explained(settings, services.migration_url)


@cli.command()
def doctor(as_json: AsJson = False) -> None:
    """Check settings, machine, data folder and services, and say what to do. Starts nothing."""
    from app.cli.doctor import examination, report  # noqa: PLC0415  (Celery and more, for this one only)

    found = asyncio.run(examination.examine(os.environ))
    if as_json:
        typer.echo(json.dumps(report.document(found)))
    else:
        report.show(_console(as_json), found)
    if examination.has_failures(found):
        raise typer.Exit(1)


@cli.command()
def demo(as_json: AsJson = False) -> None:
    """Ingest the sample handbook, publish an agent, and stream three cited answers."""
    console = _console(as_json)
    try:
        result = run_demo(get_settings(), console)
    except KeyboardInterrupt:
        console.print("Interrupted: what the demo started is stopped; it can be run again at any time.")
        raise typer.Exit(_INTERRUPTED) from None
    if as_json:
        typer.echo(json.dumps(result))


@cli.command()
def ask(
    question: str,
    agent: Annotated[str, typer.Option(help="Slug or id of a published agent.")] = "handbook",
    as_json: AsJson = False,
) -> None:
    """Ask a published agent and stream its answer with citations."""
    console = _console(as_json)
    with open_client(find_server(get_settings())) as client:
        version = client.get(f"/agents/{segment(agent)}/versions", limit=1)["items"]
        message = "question"
        if version:
            interface = client.get(f"/agents/{segment(agent)}")["draft"].get("interface") or {}
            message = interface.get("message") or message
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


@cli.command()
def ingest(
    paths: Annotated[list[Path], typer.Argument(help="Files and folders.")],
    collection: Annotated[str, typer.Option(help="Slug; created if it is not there.")] = "documents",
    as_json: AsJson = False,
) -> None:
    """Put files into a collection and wait until they can be searched."""
    console = _console(as_json)
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
    console = _console(as_json)
    table = Table("score", "document", "page", "text", box=None)
    for item in found["items"]:
        text = " ".join(item["text"].split())
        row = (f"{item['score']:.4f}", item["title"], str(item["page"] or ""), text[:160])
        table.add_row(*map(escape, row))
    console.print(table)


@cli.command("eval")
def eval_set(
    folder: Annotated[Path, typer.Argument(help="With corpus.jsonl, queries.jsonl and qrels.tsv.")],
    collection: Annotated[str | None, typer.Option(help="Slug; by default `eval-` and the name.")] = None,
    mode: Annotated[list[Mode] | None, typer.Option(help="Only this; may be repeated.")] = None,
    as_json: AsJson = False,
) -> None:
    """Ingest a retrieval set (BEIR's layout) and measure how well search finds what is relevant."""
    found = read_retrieval_set(folder)
    console = _console(as_json)
    with open_client(find_server(get_settings())) as client:
        slug = collection or default_collection(found.name)
        measured = evaluate(client, found, collection=slug, modes=mode or list(Mode), console=console)
    if as_json:
        typer.echo(json.dumps(measured.document()))
    else:
        show(console, measured)


@keys.command("create")
def keys_create(
    name: Annotated[str, typer.Option(help="What the key is for.")] = "cli",
    permission: Annotated[list[str] | None, typer.Option(help="Only this; may be repeated.")] = None,
    project: Annotated[str | None, typer.Option(help="Slug or id of the project it is bound to.")] = None,
    save: Annotated[bool, typer.Option(help="Keep it for this command line.")] = False,
    as_json: AsJson = False,
) -> None:
    """Create an API key for the owner of this installation; its secret is shown once."""
    settings = get_settings()
    found = read_services_file(settings)
    url = found.database_url if found else demanded(settings.database_url, "ORRERY_DATABASE_URL")
    with explained(url, setting="ORRERY_DATABASE_URL"):
        made = asyncio.run(create_key(settings, url, name=name, permissions=permission, project=project))
    if save:
        save_credentials(settings, made.key)
    typer.echo(json.dumps({"id": str(made.id), "key": made.key}) if as_json else made.key)


@secrets.command("rotate")
def secrets_rotate(
    data_keys: Annotated[bool, typer.Option(help="Also replace the data keys of all organizations.")] = True,
    as_json: AsJson = False,
) -> None:
    """Put ORRERY_MASTER_KEY in force in place of ORRERY_MASTER_KEY_PREVIOUS, and replace all data keys.

    Servers may go on working if they were started with both master keys. An interrupted rotation is
    finished by running it again. Exit code 1: something is left, which is named, with what to do about it.
    """
    settings = get_settings()
    found = read_services_file(settings)
    url = found.database_url if found else demanded(settings.database_url, "ORRERY_DATABASE_URL")
    console = Console(stderr=True, highlight=False, emoji=False)
    done = asyncio.run(rotate_secrets(settings, url, data_keys=data_keys, progress=console.print))
    if as_json:
        typer.echo(json.dumps(asdict(done)))
    else:
        begun = "Finished the rotation that was begun before" if done.resumed else "Done"
        typer.echo(
            f"{begun}: {done.keys_wrapped} keys wrapped by the new master key, {done.data_keys_replaced} "
            f"data keys replaced, {done.secrets_sealed} secrets sealed again, {done.keys_left} keys left."
        )
    for line in done.unreadable:
        console.print(f"  left: {line}", markup=False)
    if done.keys_left or done.unreadable:
        raise typer.Exit(1)


def _console(as_json: bool) -> Console:
    return Console(stderr=as_json, highlight=False, emoji=False)


def _setting(name: str, value: Any) -> None:
    if value is not None:
        os.environ[name] = str(value)


def _find_master_key(settings: Settings) -> None:
    """A worker started by hand beside an embedded `serve` uses that one's generated key."""
    path = settings.data_dir / "secrets" / "master.key"
    if settings.master_key is None and path.exists():
        os.environ["ORRERY_MASTER_KEY"] = path.read_text()
