"""`orrery serve` as a real process on a data folder of its own, to be killed and started again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psutil
from celery import Celery

BACKEND = Path(__file__).resolve().parents[2]
KEY = "trust-tests-key-of-more-than-32-characters"
_START_S = 90
_SETTINGS = {
    "ORRERY_BOOTSTRAP_API_KEY": KEY,
    "ORRERY_LEASE_S": "3",
    "ORRERY_SWEEP_INTERVAL_S": "0.5",
    "ORRERY_SHUTDOWN_GRACE_S": "2",
    "ORRERY_PARSE_PROCESSES": "1",
    "ORRERY_RUN_WARM_UP": "false",  # the engine is a quarter of a start, and few of these tests run agents
}


def environment(data_dir: Path, **changes: str) -> dict[str, str]:
    """This process's environment without settings of ours, on `data_dir`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ORRERY_")}
    return kept | _SETTINGS | {"ORRERY_DATA_DIR": str(data_dir), "PYTHONPATH": str(BACKEND)} | changes


def orrery(
    arguments: Sequence[str | Path], data_dir: Path, *, timeout_s: float = 240, **changes: str
) -> subprocess.CompletedProcess[str]:
    """Runs the command to its end; its whole tree is killed at the time-out."""
    with started(arguments, data_dir, stderr=subprocess.PIPE, stdout=subprocess.PIPE, **changes) as process:
        out, err = process.communicate(timeout=timeout_s)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@contextmanager
def started(
    arguments: Sequence[str | Path], data_dir: Path, *, stdout: Any, stderr: Any, **changes: str
) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "app.cli", *map(str, arguments)],
        cwd=data_dir.parent,
        env=environment(data_dir, **changes),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        text=True,
    )
    try:
        yield process
    finally:
        kill_tree(process.pid)
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream:
                stream.close()


def kill_tree(pid: int) -> None:
    """SIGKILL to a process and all that it started."""
    try:
        head = psutil.Process(pid)
        victims = [head, *head.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for victim in victims:
        try:
            victim.kill()
        except psutil.NoSuchProcess:
            continue


def processes_in(folder: Path) -> Iterator[str]:
    """Names of the processes that work in `folder` or were told to."""
    for process in psutil.process_iter():
        try:
            if works_in(process, folder):
                yield process.name()
        except psutil.Error:
            continue


def works_in(process: psutil.Process, folder: Path) -> bool:
    places = (process.cwd(), process.environ().get("ORRERY_DATA_DIR", ""))
    return any(Path(place).is_relative_to(folder) for place in places if place)


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder for data folders, which an unprivileged PostgreSQL may enter; removed with all in it."""
    folder = Path(tempfile.mkdtemp(prefix="orrery-trust-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def eventually(check: Callable[[], Any], *, within_s: float = 60, every_s: float = 0.05) -> Any:
    """What `check` answers as soon as it is true."""
    deadline = time.monotonic() + within_s
    while not (found := check()):
        if time.monotonic() > deadline:
            raise AssertionError(f"it did not happen within {within_s:g} s")
        time.sleep(every_s)
    return found


@dataclass(slots=True)
class Platform:
    """Not running before `start`; `kill` is kill -9 of `orrery serve`, started with `options`, alone."""

    data_dir: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    options: Sequence[str] = ()
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.data_dir.parent / "serve.log"

    @property
    def temporary(self) -> Path:
        """Where its processes put their temporary files."""
        return self.data_dir.parent / "tmp"

    def start(self) -> None:
        self.launch()
        eventually(self.ready, within_s=_START_S)

    def launch(self) -> None:
        """Starts without waiting until it is ready."""
        self.temporary.mkdir(exist_ok=True)
        self.temporary.chmod(0o1777)
        places = {"TMPDIR": str(self.temporary)}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app.cli", "serve", "--port", "0", *self.options],
                cwd=self.data_dir.parent,
                env=environment(self.data_dir, **self.settings) | places,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def owns(self, process: psutil.Process) -> bool:
        return works_in(process, self.data_dir.parent)

    def ready(self) -> bool:
        assert self.process
        if self.process.poll() is not None:
            raise AssertionError(f"serve ended: {self.log.read_text()[-2000:]}")
        try:
            return self.services()["pid"] == self.process.pid and (
                httpx2.get(self.url + "/health/ready", trust_env=False, verify=False).status_code == 200
            )
        except (OSError, ValueError, httpx2.TransportError):
            return False

    def services(self) -> dict[str, Any]:
        """What it announced in the data folder."""
        return dict(json.loads((self.data_dir / "run" / "services.json").read_text()))

    @property
    def url(self) -> str:
        return str(self.services()["api_url"])

    @contextmanager
    def client(self) -> Iterator[httpx2.Client]:
        headers = {"Authorization": f"Bearer {KEY}"}
        base = self.url + "/api/v1"
        with httpx2.Client(
            base_url=base, headers=headers, timeout=30, trust_env=False, verify=False
        ) as client:
            yield client

    def worker(self) -> psutil.Process | None:
        """The Celery worker's first process, once it has its pool."""
        assert self.process
        for child in psutil.Process(self.process.pid).children():
            try:
                if "celery" in child.cmdline() and child.children():
                    return child
            except psutil.Error:
                continue
        return None

    def kill_worker(self) -> None:
        worker = eventually(self.worker)
        kill_tree(worker.pid)

    def working(self) -> psutil.Process:
        """The process in which the worker's items are worked on."""

        def pool() -> psutil.Process | None:
            with suppress(psutil.Error):  # it may just have died
                worker = self.worker()
                children = worker.children() if worker else []
                return next((child for child in children if "celery" in child.cmdline()), None)
            return None

        return eventually(pool)

    def service(self, name: str) -> psutil.Process:
        """The first process of an embedded service, `postgres` or `redis-server`."""

        def found() -> psutil.Process | None:
            assert self.process
            children = psutil.Process(self.process.pid).children()
            return next((child for child in children if child.name() == name), None)

        return eventually(found)

    def send_drain(self, queue: str, *, times: int) -> None:
        """The message that wakes a worker, several times over."""
        with Celery(broker=self.services()["redis_url"]) as app:
            for _ in range(times):
                app.send_task("drain", args=[queue], queue=queue, ignore_result=True)

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM, then whatever it takes; answers the exit code."""
        assert self.process
        tree = psutil.Process(self.process.pid).children(recursive=True) if self.running else []
        self.process.terminate()
        try:
            return self.process.wait(40)
        finally:
            kill_tree(self.process.pid)
            self.process.wait()
            for left in tree:
                if left.is_running():
                    kill_tree(left.pid)

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None


@contextmanager
def second_worker(platform: Platform) -> Iterator[subprocess.Popen[str]]:
    """Another worker on the same services, as `orrery worker` starts it; its tree is killed afterwards."""
    with open_folder() as temporary, platform.log.open("ab") as log:
        places = {"TMPDIR": str(temporary)}
        with started(["worker"], platform.data_dir, stdout=log, stderr=log, **places) as process:
            yield process
