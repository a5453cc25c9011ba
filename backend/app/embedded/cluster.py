"""Makes the PostgreSQL cluster, and in it the database and the role of the application."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from signal import Signals

import asyncpg

from app.core.errors import Misconfigured
from app.embedded.account import NAMED_USER, name_fault
from app.embedded.binaries import POSTGRES_MAJOR
from app.embedded.failures import DiskFull, log_end, start_failure
from app.embedded.places import Places
from app.embedded.ports import LOOPBACK
from app.embedded.private import private_folder, write_private
from app.embedded.process import Command, exited, launch, stop

OWNER = "postgres"
APP_ROLE = "orrery_app"
DATABASE = "orrery"
_CLUSTER_BYTES = 64 * 2**20  # what initdb writes, and some room to start in

# Written once into postgresql.conf, where the operator may change them.
_CONFIGURATION = {
    "max_connections": "200",
    "shared_buffers": "128MB",
    "effective_cache_size": "1GB",
    "maintenance_work_mem": "128MB",
    "random_page_cost": "1.1",
    "checkpoint_timeout": "15min",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
}


async def ensure_cluster(places: Places, *, programs: Path, password: str, timeout_s: float) -> None:
    """Runs initdb unless there is a cluster. A start that is killed here leaves no half-made cluster.

    Raises:
        Misconfigured: our user id has no name, initdb fails (the message carries its last words), there is
            no room for it, or the cluster that is there is damaged or another PostgreSQL's.
    """
    if _exists(places.cluster):
        _check(places.cluster)
        return
    if fault := name_fault(places.account.uid if places.account else os.geteuid()):
        raise Misconfigured(f"The database cannot be created: {fault}: {NAMED_USER}.")
    workspace = _make_workspace(places, password=password)
    try:
        _demand_room(workspace)
        await _initdb(places, programs=programs, workspace=workspace, timeout_s=timeout_s)
        _adopt(workspace / "cluster", places)
    finally:
        shutil.rmtree(workspace, ignore_errors=True)


def _exists(cluster: Path) -> bool:
    return cluster.is_dir() and any(cluster.iterdir())


def _check(cluster: Path) -> None:
    """Says what PostgreSQL would say in words that do not help its operator."""
    lost = [name for name in ("PG_VERSION", "global/pg_control") if not (cluster / name).is_file()]
    if lost:
        raise Misconfigured(
            f"The database {str(cluster)!r} is damaged ({lost[0]!r} is missing): restore the folder from a "
            "backup, or move it away to begin empty."
        )
    version = (cluster / "PG_VERSION").read_text(encoding="utf-8", errors="replace").strip()
    if version != POSTGRES_MAJOR:
        raise Misconfigured(
            f"The database {str(cluster)!r} was made by PostgreSQL {version}, which the embedded PostgreSQL "
            f"{POSTGRES_MAJOR} cannot read: dump it with version {version} and restore it, set "
            f"ORRERY_DATABASE_URL to a server of version {version}, or move the folder away to begin empty."
        )


def _demand_room(folder: Path) -> None:
    """initdb cleans up when it fails, so that its failure is hard to explain afterwards."""
    space = os.statvfs(folder)
    free = space.f_bavail * space.f_frsize
    if free < _CLUSTER_BYTES:
        raise DiskFull(
            f"The disk has {free // 2**20} MB left at {str(folder)!r}, and a new database takes "
            f"{_CLUSTER_BYTES // 2**20} MB: free some space and start again."
        )


def _make_workspace(places: Places, *, password: str) -> Path:
    for remains in places.home.glob(".initdb-*"):
        shutil.rmtree(remains)
    workspace = Path(tempfile.mkdtemp(prefix=".initdb-", dir=places.home))
    private_folder(workspace, account=places.account)
    write_private(workspace / "password", password, account=places.account)
    return workspace


def _adopt(made: Path, places: Places) -> None:
    made.rename(places.cluster)
    if places.relocated:
        places.cluster_link.symlink_to(places.cluster)


async def _initdb(places: Places, *, programs: Path, workspace: Path, timeout_s: float) -> None:
    log = places.logs / "postgresql.log"
    offset = log_end(log)
    command = Command(
        argv=(
            str(programs / "initdb"),
            f"--pgdata={workspace / 'cluster'}",
            f"--username={OWNER}",
            f"--pwfile={workspace / 'password'}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale-provider=builtin",
            "--locale=C.UTF-8",
            "--lc-messages=C",
            "--no-instructions",
            *(f"--set={name}={value}" for name, value in _CONFIGURATION.items()),
        ),
        cwd=workspace,
        log=log,
        account=places.account,
        death_signal=Signals.SIGKILL,
    )
    process = launch(command)
    try:
        in_time = await exited(process, timeout_s=timeout_s)
    finally:
        await stop(process, ((Signals.SIGTERM, 2.0),))
    if not in_time or process.returncode != 0:
        what = "The database could not be created" if in_time else f"initdb took over {timeout_s:g} s"
        raise start_failure(what, log=log, offset=offset)


async def ensure_database(port: int, *, owner_password: str, app_password: str) -> None:
    """The database and the login role of the application, which gets `app_password` at every start.

    Raises:
        Misconfigured: PostgreSQL refuses.
    """
    try:
        connection = await connect(port, user=OWNER, password=owner_password)
        try:
            await _ensure_role(connection, app_password)
            if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", DATABASE):
                await connection.execute(f"CREATE DATABASE {DATABASE}")
        finally:
            await connection.close()
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise Misconfigured(
            f"The embedded PostgreSQL cannot prepare the database {DATABASE!r} ({error}): "
            "check that the disk has space, then start again."
        ) from error


async def _ensure_role(connection: asyncpg.Connection, password: str) -> None:
    if not await connection.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", APP_ROLE):
        await connection.execute(f"CREATE ROLE {APP_ROLE}")
    # The password is hexadecimal, and DDL takes no parameters.
    await connection.execute(
        f"ALTER ROLE {APP_ROLE} LOGIN NOINHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION "
        f"NOBYPASSRLS PASSWORD '{password}'"
    )


async def connect(port: int, *, user: str, password: str) -> asyncpg.Connection:
    """A connection to the maintenance database, which every cluster has."""
    return await asyncpg.connect(
        host=LOOPBACK, port=port, user=user, password=password, database="postgres", ssl=False, timeout=5
    )
