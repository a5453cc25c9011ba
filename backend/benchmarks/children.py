"""Child processes of a benchmark: the platform itself, and servers of the bare parts."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from signal import SIGTERM
from typing import Any

import httpx2
import psutil

from app.cli.credentials import load_api_key
from app.core.config import Settings
from app.core.constants import API_PREFIX
from app.core.processes import die_with
from app.embedded import ServicesFile, read_services_file
from benchmarks.processes import cpu_s, running_module, tree_cpu_s

WORKER = "app.workers.celery_app"
BACKEND = Path(__file__).resolve().parents[1]
_START_S = 120
_STOP_S = 60
_POLL_S = 0.005


class BenchmarkFailed(Exception):
    """Something did not work, so that there is nothing to measure."""


@dataclass(frozen=True, slots=True)
class Child:
    """A server in a process of its own."""

    process: psutil.Process
    url: str
    wall_s: float

    def client(self, key: str | None = None) -> httpx2.AsyncClient:
        """With one connection per concurrent call; `key` is sent as bearer token."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        limits = httpx2.Limits(max_connections=400, max_keepalive_connections=400)
        return httpx2.AsyncClient(
            base_url=self.url, headers=headers, timeout=120, limits=limits, trust_env=False
        )


@dataclass(frozen=True, slots=True)
class Platform:
    """`orrery serve` on embedded services, ready; `child.wall_s` is the time that took."""

    child: Child
    data_dir: Path
    services: ServicesFile
    key: str

    def client(self) -> httpx2.AsyncClient:
        return self.child.client(self.key)

    def cpu(self) -> dict[str, float]:
        """CPU seconds so far of each process of the platform; only differences mean something."""
        children = self.child.process.children(recursive=True)
        return {
            "API": cpu_s([self.child.process]),
            "worker": sum(tree_cpu_s(worker) for worker in running_module(self.child.process, WORKER)),
            "PostgreSQL": cpu_s(child for child in children if "postgres" in child.name()),
            "Redis": cpu_s(child for child in children if "redis" in child.name()),
        }

    @property
    def postgres(self) -> list[psutil.Process]:
        """The server's processes as they are now; ask again when connections have been opened."""
        return [child for child in self.child.process.children(recursive=True) if "postgres" in child.name()]


@contextmanager
def data_folder() -> Iterator[Path]:
    """An empty data folder that an unprivileged PostgreSQL may enter; gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="orrery-bench-") as folder:
        path = Path(folder)
        path.chmod(0o755)
        yield path / "data"


@contextmanager
def platform(data_dir: Path, *, worker: bool = False) -> Iterator[Platform]:
    """Starts the whole platform and waits until it is ready; stops it on leaving."""
    arguments = ["app.cli", "serve", "--port", "0", *([] if worker else ["--no-worker"])]
    settings = Settings(data_dir=data_dir, _env_file=None)
    log = data_dir.parent / "serve.log"
    began = time.perf_counter()
    with log.open("ab") as output, _started(arguments, data_dir, stdout=output) as process:
        services = _wait(lambda: _ready(settings), process, log)
        child = Child(psutil.Process(process.pid), services.api_url, time.perf_counter() - began)
        key = load_api_key(settings)
        if key is None:
            raise BenchmarkFailed("the first start made no API key")
        yield Platform(child, data_dir, services, key)


@contextmanager
def server(module: str, *arguments: str, data_dir: Path) -> Iterator[Child]:
    """Runs `python -m module`, which prints its URL when it serves (see `serving`)."""
    began = time.perf_counter()
    with _started([module, *arguments], data_dir, stdout=subprocess.PIPE) as process:
        if process.stdout is None:
            raise BenchmarkFailed("a child without output")
        url = process.stdout.readline().decode().strip()
        if not url:
            raise BenchmarkFailed(f"{module} did not start")
        httpx2.get(url, trust_env=False)
        yield Child(psutil.Process(process.pid), url, time.perf_counter() - began)


@contextmanager
def _started(arguments: list[str], data_dir: Path, *, stdout: Any) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=BACKEND,
        env=os.environ | {"ORRERY_DATA_DIR": str(data_dir)},
        stdout=stdout,
        stderr=None if stdout is subprocess.PIPE else subprocess.STDOUT,
        preexec_fn=die_with(os.getpid(), SIGTERM),
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _ready(settings: Settings) -> ServicesFile | None:
    found = read_services_file(settings)
    if found is None:
        return None
    try:
        answer = httpx2.get(f"{found.api_url}/health/ready", trust_env=False)
    except httpx2.TransportError:
        return None
    return found if answer.status_code == 200 else None


def _wait(
    look: Callable[[], ServicesFile | None], process: subprocess.Popen[bytes], log: Path
) -> ServicesFile:
    deadline = time.perf_counter() + _START_S
    while time.perf_counter() < deadline and process.poll() is None:
        found = look()
        if found is not None:
            return found
        time.sleep(_POLL_S)
    raise BenchmarkFailed(f"the platform did not start: {log.read_text(errors='replace')[-2000:]}")


async def call(client: httpx2.AsyncClient, method: str, path: str, body: Any = None) -> Any:
    """One call of our API; `BenchmarkFailed` with the server's words where it is refused."""
    answer = await client.request(method, API_PREFIX + path, json=body)
    if answer.status_code >= 400:
        raise BenchmarkFailed(f"{method} {path}: {answer.status_code} {answer.text[:500]}")
    return answer.json() if answer.content else None
