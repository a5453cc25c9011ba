"""The commands that run processes of the platform, or prepare for them."""

from __future__ import annotations

import asyncio
import os
import sys
from functools import partial
from pathlib import Path
from shutil import which
from typing import Annotated, Any

import typer
import uvloop
from rich.console import Console

from app.api.pages import tutorial_page
from app.cli.crash import crashes_noted
from app.cli.credentials import credentials_path
from app.cli.following import WORKER_ID, follow, is_to_follow
from app.cli.inventory import Inventory
from app.cli.run_worker import work_on_runs
from app.cli.serve import migrate_explained
from app.cli.serve import serve as serve_platform
from app.cli.setting_names import warn_of_unknown_settings
from app.cli.worker_process import QUIET, worker_arguments
from app.core.config import Settings, get_settings
from app.core.garbage import collect_seldom
from app.core.logging import configure_logging
from app.core.security import master_key_file
from app.embedded import open_services, read_services_file
from app.resources import demanded, process_name
from app.services.auth_service import Bootstrapped

cli = typer.Typer()


@cli.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on (ORRERY_HOST).")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one (ORRERY_PORT).")] = None,
    worker: Annotated[bool, typer.Option(help="Also run a worker for ingestion.")] = True,
    show_key: Annotated[bool, typer.Option(help="Print the API key that the very first start makes.")] = True,
) -> None:
    """Run the whole platform: API, runs, ingestion, and the embedded services unless real ones are set."""
    _setting("ORRERY_HOST", host)
    _setting("ORRERY_PORT", port)
    settings = get_settings()
    configure_logging(settings)
    warn_of_unknown_settings(os.environ)
    collect_seldom()
    with crashes_noted(settings):
        uvloop.run(serve_platform(settings, worker=worker, started=partial(announce, show_key=show_key)))


def announce(url: str, made: Bootstrapped, there: Inventory, *, show_key: bool = True) -> None:
    """Tells the operator where it will answer, and what the first start made or a later one ignored."""
    out = Console(soft_wrap=True, highlight=False)
    settings = get_settings()
    documented = f" (API documentation: {url}/docs)" if settings.docs_enabled else ""
    out.print(f"Orrery is starting at [bold]{url}[/]{documented}")
    chosen = settings.bootstrap_api_key is not None
    if made.api_key and not chosen and show_key:
        out.print(f"API key, shown this once: [bold]{made.api_key}[/]")
        out.print("The command line has it already: it is kept in credentials.json of the data folder.")
    else:
        if credentials_path(settings).exists():
            out.print(f"The command line's API key is kept in {credentials_path(settings)}")
        if not chosen:
            out.print("A key for curl and other programs, shown once: orrery keys create")
    if made.ignored:
        out.print(
            f"{' and '.join(made.ignored)}: ignored, because only the very first start makes the owner; "
            "'orrery users set-password' sets a password or another email."
        )
    out.print(there.told())
    out.print(f"Next, in a second terminal: {there.next_step()}", markup=False)
    if which("orrery") is None:
        out.print(f"  ('orrery' comes by: . {Path(sys.prefix) / 'bin' / 'activate'})", markup=False)
    if settings.docs_enabled and (tutorial := tutorial_page()):
        out.print(f"The first 15 minutes: {url}{tutorial}")


@cli.command()
def worker(
    runs: Annotated[
        bool, typer.Option("--runs", help="Execute runs that nobody waits for; no documents.")
    ] = False,
) -> None:
    """Run a worker on the configured services, else on those of the `orrery serve` that runs here.

    Without --runs it takes in documents (a Celery worker). Services that `orrery serve` brought itself are
    followed when it is started again.
    """
    settings = get_settings()
    configure_logging(settings)
    if WORKER_ID not in os.environ:
        warn_of_unknown_settings(os.environ)
    found = read_services_file(settings)
    if found is not None and is_to_follow(settings, found):
        arguments = ["worker", "--runs"] if runs else ["worker"]
        raise typer.Exit(uvloop.run(follow(settings, found, arguments)))
    if found is not None:
        os.environ["ORRERY_DATABASE_URL"] = found.database_url
        os.environ["ORRERY_REDIS_URL"] = found.redis_url
    _find_master_key(settings)
    database_url = demanded(Settings().database_url, "ORRERY_DATABASE_URL")
    redis_url = demanded(Settings().redis_url, "ORRERY_REDIS_URL")
    if runs:
        collect_seldom()
        uvloop.run(work_on_runs(Settings(), database_url=database_url, redis_url=redis_url))
        return
    os.environ.update(QUIET)
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


def _setting(name: str, value: Any) -> None:
    if value is not None:
        os.environ[name] = str(value)


def _find_master_key(settings: Settings) -> None:
    """A worker started by hand beside an embedded `serve` uses that one's generated key."""
    path = master_key_file(settings)
    if settings.master_key is None and path.exists():
        os.environ["ORRERY_MASTER_KEY"] = path.read_text()
