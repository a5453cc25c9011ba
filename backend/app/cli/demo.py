"""`orrery demo`: the main job from an empty folder to a cited answer, against a real server."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGTERM
from typing import Any

import yaml
from rich.console import Console

from app.cli.answering import Answer, read_answer, show_citations, show_times
from app.cli.client import ApiError, Client, open_client
from app.cli.credentials import find_server
from app.cli.ingesting import collect_files, ensure_collection, ingest
from app.core.config import Settings
from app.core.constants import DEFAULT_CHAT_MODEL, DEMO_NAME
from app.core.errors import AppError
from app.core.processes import die_with
from app.embedded import explained, make_data_folder, read_services_file

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
COLLECTION = AGENT = DEMO_NAME
QUESTIONS = (
    ("How much does the company pay per kilometre when I use my private car?", True),
    ("How quickly must a suspected security incident be reported?", True),
    ("May I bring my dog to the Innsbruck office?", False),
)
_OFFLINE = "local"
_MODEL_SETTINGS = ("ORRERY_OPENAI_API_KEY", "OPENAI_API_KEY", "ORRERY_OPENAI_BASE_URL", "OPENAI_BASE_URL")
_START_S = 120
_STOP_S = 60


class DemoFailed(AppError):
    """Something that the demo promises did not happen."""

    code, title = "demo_failed", "The demo failed"


def run_demo(settings: Settings, console: Console) -> dict[str, Any]:
    """Joins the server of the data folder, or starts one meanwhile. `DemoFailed` says what failed."""
    started = time.monotonic()
    with _server(settings, console) as joined, open_client(find_server(settings)) as client:
        console.rule("1. Documents")
        ensure_collection(client, COLLECTION, name="Handbook")
        done = ingest(client, COLLECTION, collect_files([EXAMPLES / "handbook"]), console=console)
        if done.failures:
            raise DemoFailed(f"Some documents were not ingested: {done.failures}.")
        console.print(f"{done.ready} documents ingested, {done.unchanged} were there already")
        console.rule("2. Agent")
        version = _publish(client, EXAMPLES / "agents" / "handbook.yaml")
        console.print(f"agent {AGENT!r}, version {version['version']}, {version['content_hash'][:12]}")
        console.rule("3. Answers")
        model = _answering_model(client, console)
        answers = [_ask(client, console, model, question, known) for question, known in QUESTIONS]
        console.rule("4. What next")
        _next_steps(console, url=find_server(settings).url if joined else _url_of_serve(settings))
    console.print(f"[green]Demo finished in {time.monotonic() - started:.1f} s[/]")
    return {
        "documents": done.ready + done.unchanged,
        "version": version["version"],
        "model": f"{model['provider']}/{model['model']}",
        "answers": [{"answer": a.text, "citations": a.citations, "run_id": a.run_id} for a in answers],
    }


def _publish(client: Client, file: Path) -> Any:
    """Creates or updates the agent and publishes it where it differs from what is live."""
    graph = yaml.safe_load(file.read_text())
    try:
        agent = client.get(f"/agents/{AGENT}")
    except ApiError as error:
        if error.code != "not_found":
            raise
        agent = client.post("/agents", {"name": "Handbook", "slug": AGENT, "graph": graph})
    if agent["draft"] != graph:
        agent = client.patch(f"/agents/{AGENT}", {"graph": graph})
    report = client.post(f"/agents/{AGENT}/validate")
    if not report["valid"]:
        raise DemoFailed(f"{file.name} is not valid: {report['issues']}")
    published = client.get(f"/agents/{AGENT}/versions", limit=1)["items"]
    if published and agent["revision"] == 1:
        return published[0]
    return client.post(f"/agents/{AGENT}/publish", {"note": "demo"})


def _answering_model(client: Client, console: Console) -> Any:
    """What `default-chat` stands for on the server, which is said, and what that leaves unused here."""
    model = client.get(f"/models/{DEFAULT_CHAT_MODEL}/resolve")
    if model["problem"]:
        raise DemoFailed(f"The demo cannot ask its model: {model['problem']}")
    console.print(f"[bold]{model['provider']}/{model['model']}[/] answers: {model['why']}", soft_wrap=True)
    unused = [name for name in _MODEL_SETTINGS if os.environ.get(name)]
    if unused and model["source"] == "built_in":
        console.print(
            f"[yellow]{' and '.join(unused)}: unused, because the server was started without; "
            "start it again with it[/]"
        )
    return model


def _ask(client: Client, console: Console, model: Any, question: str, known: bool) -> Answer:
    """The answer of the offline model is held against what it must be; others write as they like."""
    console.print(f"\n[bold]{question}[/]")
    events = client.stream(f"/agents/{AGENT}/runs", {"input": {"question": question}, "mode": "stream"})
    answer = read_answer(events, show=console)
    show_citations(console, answer.citations)
    show_times(console, answer.nodes)
    if not answer.text.strip():
        raise DemoFailed(f"{question!r} was answered with nothing.")
    if model["provider"] != _OFFLINE:
        return answer
    if known and not answer.citations:
        raise DemoFailed(f"{question!r} was answered without a citation: {answer.text!r}")
    if not known and answer.citations:
        raise DemoFailed(f"{question!r} has no answer in the handbook, but got {answer.text!r}")
    return answer


@contextmanager
def _server(settings: Settings, console: Console) -> Iterator[bool]:
    """Yields whether it was running before, and will run on."""
    if read_services_file(settings) is not None:
        console.print("joining the running server")
        yield True
        return
    console.print("starting the platform on embedded services …")
    with explained(settings.data_dir):
        make_data_folder(settings.data_dir)
    log = settings.data_dir / "demo-server.log"
    command = [sys.executable, "-m", "app.cli", "serve", "--port", "0", "--no-show-key"]
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as output:
        # In a session of its own: an interrupt at the terminal is for us, and we end it once.
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with(os.getpid(), SIGTERM),
        )
        try:
            _wait_ready(settings, process, log)
            yield False
        finally:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_ready(settings: Settings, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise DemoFailed(f"The platform did not start: {_last_lines(log)}")
        if read_services_file(settings) is not None:
            with open_client(find_server(settings)) as client:
                if client.ready():
                    return
        time.sleep(0.1)
    raise DemoFailed(f"The platform was not ready within {_START_S} s: {_last_lines(log)}")


def _last_lines(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    reasons = [line for line in lines if line.startswith("Error:")]
    return (reasons[-1].removeprefix("Error:").strip() if reasons else " | ".join(lines[-3:])) or "no output"


def _url_of_serve(settings: Settings) -> str:
    """Where `orrery serve` with these settings will answer; empty where it will choose a port itself."""
    return f"http://{settings.host}:{settings.port}" if settings.port else ""


def _next_steps(console: Console, *, url: str) -> None:
    documented = f"The API is documented at {url}/docs; the" if url else "The"
    console.print(
        "Run it yourself: [bold]make serve[/], then in a second terminal\n"
        "  . backend/.venv/bin/activate\n"
        '  orrery ask "What is the per diem for a full day in Oslo?"\n'
        "  orrery ingest PATH… --collection documents\n"
        f"{documented} agent is examples/agents/handbook.yaml.\n"
        "The command line's API key is kept in credentials.json of the data folder."
    )
