"""`orrery serve`: the whole platform on one machine, in one command."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager

import structlog
import uvicorn

from app.cli.credentials import load_api_key, save_credentials
from app.cli.worker_process import supervised_worker
from app.core.config import Settings
from app.core.errors import Misconfigured
from app.core.failpoints import failpoint
from app.core.security import derive_key, jwt_key, master_key
from app.db.connection import open_engine
from app.db.migrate import check_runtime_role, migrate
from app.db.session import make_database
from app.embedded import Services, open_services, remove_services_file, write_services_file
from app.services.auth_service import AuthService, Bootstrapped
from app.services.runs.leases import ITEMS, LOCAL, RUNS, put_back, release_local

logger = structlog.get_logger(__name__)

_STREAMS_MAY_TAKE_S = 3
Started = Callable[[str, Bootstrapped], None]


class _Server(uvicorn.Server):
    """Leaves signals to us: uvicorn would raise them again before our services have stopped."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(settings: Settings, *, worker: bool, started: Started) -> None:
    """Serves until SIGTERM or SIGINT. `started(url, bootstrapped)` is called before the port answers."""
    with _bound_socket(settings) as listener:
        url = _url(settings, listener)
        async with AsyncExitStack() as stack:
            services = await stack.enter_async_context(open_services(settings))
            bootstrapped = await prepare(settings, services)
            write_services_file(settings, services, api_url=url)
            stack.callback(remove_services_file, settings)
            if worker:
                local = "postgresql" in services.owned
                name = f"{LOCAL}:worker" if local else f"{socket.gethostname()}:{os.getpid()}:worker"
                stack.push_async_callback(_give_back, settings, services, name)
                await stack.enter_async_context(supervised_worker(settings, services, worker_id=name))
            started(url, bootstrapped)
            await _run(settings, listener)


async def prepare(settings: Settings, services: Services) -> Bootstrapped:
    """Migrates, makes the first owner, project and key, and frees what dead local processes held."""
    jwt_key(settings)  # says what is wrong with it before anything has started
    await migrate(services.migration_url)
    prepared = settings.database_prepared_statements
    async with open_engine(services.database_url, pool_size=2, prepared=prepared) as engine:
        await check_runtime_role(engine)
        database = make_database(engine, _nobody)
        if "postgresql" in services.owned:
            for table in (RUNS, ITEMS):
                await release_local(database, table)
        made = await AuthService(database, derive_key(master_key(settings), "api-keys")).bootstrap(settings)
    if made.api_key and load_api_key(settings) != made.api_key:
        save_credentials(settings, made.api_key)
    return made


async def _give_back(settings: Settings, services: Services, worker: str) -> None:
    """What the stopped worker had in hand has not failed; the next one takes it up without a count."""
    prepared = settings.database_prepared_statements
    async with open_engine(services.database_url, pool_size=1, prepared=prepared) as engine:
        await put_back(make_database(engine, _nobody), worker)
    failpoint("lease.given_back")


async def _run(settings: Settings, listener: socket.socket) -> None:
    config = uvicorn.Config(
        "main:create_app",
        factory=True,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # `create_app` believes those that the settings trust
        timeout_graceful_shutdown=_STREAMS_MAY_TAKE_S,
    )
    server = _Server(config)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop, server)
    await server.serve(sockets=[listener])
    if not server.started:
        raise Misconfigured("The API did not start; the log above says why.")


def _stop(server: uvicorn.Server) -> None:
    server.force_exit = server.should_exit
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
                "choose another with ORRERY_HOST and ORRERY_PORT."
            ) from error
        listener.setblocking(False)
        yield listener


def _url(settings: Settings, listener: socket.socket) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104
    return f"http://{host}:{listener.getsockname()[1]}"
