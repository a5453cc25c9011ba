"""`orrery serve`: the whole platform on one machine, in one command."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from urllib.parse import urlsplit

import structlog
import uvicorn
from uvicorn.importer import import_from_string

from app.cli.credentials import load_api_key, save_credentials
from app.cli.inventory import Inventory, take_inventory
from app.cli.stopping import Stop
from app.cli.worker_process import supervised_worker
from app.core.blobs import open_blobs
from app.core.config import Settings
from app.core.errors import AppError, Misconfigured
from app.core.failpoints import failpoint
from app.core.garbage import kept
from app.core.security import jwt_key, master_key, master_keys
from app.core.tasks import end
from app.db.connection import open_engine
from app.db.failures import explained as database_explained
from app.db.migrate import check_runtime_role, migrate
from app.db.session import Database, make_database
from app.embedded import (
    Services,
    explained,
    open_services,
    read_services_file,
    remove_services_file,
    write_services_file,
)
from app.services.auth_service import AuthService, Bootstrapped
from app.services.installation_service import api_key_pepper
from app.services.runs.leases import ITEMS, LOCAL, RUNS, put_back, release_local

logger = structlog.get_logger(__name__)

_STREAMS_MAY_TAKE_S = 3
_GIVE_BACK_S = 10
Started = Callable[[str, Bootstrapped, Inventory], None]


class _Server(uvicorn.Server):
    """Leaves signals to us: uvicorn would raise them again before our services have stopped.

    `url` is said in the log once the API answers there.
    """

    def __init__(self, config: uvicorn.Config, *, url: str) -> None:
        super().__init__(config)
        self.url = url

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        logger.info("ready", url=self.url)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(settings: Settings, *, worker: bool, started: Started) -> None:
    """Serves until SIGTERM or SIGINT. `started` is called with the URL before the port answers.

    Raises:
        Misconfigured: it cannot start, or a service of ours was given up; says what to do.
    """
    stop = Stop()
    with stop.listening():
        try:
            await _serve(settings, stop, worker=worker, started=started)
        except asyncio.CancelledError:
            if not stop.begun.is_set():
                raise
    if stop.reason:
        raise stop.reason


async def _serve(settings: Settings, stop: Stop, *, worker: bool, started: Started) -> None:
    with _bound_socket(settings) as listener:
        url = _url(settings, listener)
        async with AsyncExitStack() as stack:
            services = await stack.enter_async_context(open_services(settings, lost=stop.for_reason))
            bootstrapped, there = await prepare(settings, services)
            keys = master_keys(settings).ids
            write_services_file(settings, services, api_url=url, master_keys=keys)
            stack.callback(remove_services_file, settings)
            if worker:
                local = "postgresql" in services.owned
                name = f"{LOCAL}:worker" if local else f"{socket.gethostname()}:{os.getpid()}:worker"
                stack.push_async_callback(_give_back, settings, services, name)
                await stack.enter_async_context(supervised_worker(settings, services, worker_id=name))
            started(url, bootstrapped, there)
            stop.started()
            await _run(settings, listener, stop, url=url)


async def prepare(settings: Settings, services: Services) -> tuple[Bootstrapped, Inventory]:
    """Migrates, makes the first owner, project and key, and frees what dead local processes held."""
    with explained(settings.data_dir):
        jwt_key(settings)  # these two say what is wrong with them before anything has started
        master_key(settings)
        open_blobs(settings.blob_url, settings.data_dir)
    await migrate_explained(settings, services.migration_url)
    prepared = settings.database_prepared_statements
    with database_explained(services.database_url, setting="ORRERY_DATABASE_URL"):
        async with open_engine(services.database_url, pool_size=2, prepared=prepared) as engine:
            await check_runtime_role(engine)
            database = make_database(engine, _nobody)
            if "postgresql" in services.owned:
                await _take_over(database)
            pepper = await api_key_pepper(database, settings)
            made = await AuthService(database, pepper).bootstrap(settings)
            there = await take_inventory(database, made.tenant)
    if made.api_key and load_api_key(settings) != made.api_key:
        with explained(settings.data_dir):
            save_credentials(settings, made.api_key)
    return made, there


async def migrate_explained(settings: Settings, url: str) -> None:
    """`migrate`, with its failures said in the names of the settings."""
    given = settings.database_migration_url is not None
    name = "ORRERY_DATABASE_MIGRATION_URL" if given else "ORRERY_DATABASE_URL"
    with database_explained(url, setting=name):
        await migrate(url)


async def _take_over(database: Database) -> None:
    """Whatever processes of this machine held before, they died with the services that they used."""
    runs = await release_local(database, RUNS)
    items = await release_local(database, ITEMS)
    if runs or items:
        logger.info("taken_over_from_dead_processes", runs=runs, items=items)


async def _give_back(settings: Settings, services: Services, worker: str) -> None:
    """What the stopped worker had in hand has not failed; the next one takes it up without a count."""
    prepared = settings.database_prepared_statements
    try:
        async with (
            asyncio.timeout(_GIVE_BACK_S),
            open_engine(services.database_url, pool_size=1, prepared=prepared) as engine,
        ):
            items = await put_back(make_database(engine, _nobody), worker)
        failpoint("lease.given_back")
        logger.info("given_back", items=items)
    except Exception as error:  # the next start takes them over
        logger.warning("not_given_back", error=repr(error))


async def _run(settings: Settings, listener: socket.socket, stop: Stop, *, url: str) -> None:
    with kept():
        app = import_from_string("main:create_app")()
    app.state.stopping = stop.begun
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # `create_app` believes those that the settings trust
        timeout_graceful_shutdown=_STREAMS_MAY_TAKE_S,
    )
    server = _Server(config, url=url)
    closing = asyncio.create_task(_close_after(stop, server, settings.shutdown_notice_s), name="close")
    try:
        await server.serve(sockets=[listener])
    except SystemExit as error:  # uvicorn's way of saying that the application did not start
        raise Misconfigured("The API did not start; the log above says why.") from error
    finally:
        await end(closing)


async def _close_after(stop: Stop, server: uvicorn.Server, notice_s: float) -> None:
    """Load balancers see that we are not ready before the port is closed."""
    await stop.begun.wait()
    await asyncio.sleep(0 if stop.reason else notice_s)
    server.should_exit = True


async def _nobody(queue: str) -> None:
    """Before the worker runs there is nobody to wake; it looks for work when it starts."""
    logger.debug("queue_waits", queue=queue)


@contextmanager
def _bound_socket(settings: Settings) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    with listener:
        try:
            listener.bind((settings.host, settings.port))
            listener.listen(2048)
        except OSError as error:
            raise Misconfigured(
                f"{settings.host}:{settings.port} cannot be listened on ({error.strerror}): "
                f"{_who_listens(settings)}choose another with --host and --port (ORRERY_HOST, ORRERY_PORT)."
            ) from error
        listener.setblocking(False)
        yield listener


def _who_listens(settings: Settings) -> str:
    """Where it is our own platform, on this data folder."""
    try:
        running = read_services_file(settings)
    except AppError:
        return ""
    if running is None or urlsplit(running.api_url).port != settings.port:
        return ""
    return f"Orrery already runs on this data folder as process {running.pid}; stop it, or "


def _url(settings: Settings, listener: socket.socket) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104
    return f"http://{host}:{listener.getsockname()[1]}"
