"""G11: secrets are write-only. Each is a canary that is put to real use, and then looked for everywhere."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.graphs import HELLO_GRAPH, asking_graph
from tests.trust.canaries import (
    Cage,
    broker_dump,
    command_lines,
    crawl,
    files,
    forms,
    middle,
    table_dump,
)
from tests.trust.corpus import make_collection, upload, wait_for
from tests.trust.running import events
from tests.trust.serving import Platform, open_folder, orrery

pytestmark = pytest.mark.timeout(180)
KEPT_FOR_THIS_MACHINE = {"run/services.json", "redis/redis.conf"}
"""Files that services and commands of this machine are told by; readable by one user only."""


@dataclass(slots=True)
class Used:
    """A platform after its use: what it answered, and which canaries it was given."""

    platform: Platform
    cage: Cage
    client: httpx2.Client
    answers: dict[str, bytes] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)

    def call(self, method: str, path: str, status: int, **request: Any) -> Any:
        """The answer's JSON; it is kept to be searched, status line and headers included."""
        response = self.client.request(method, path, **request)
        assert response.status_code == status, response.text
        self.keep(f"{len(self.answers)} {method} {path.partition('?')[0]}", response)
        return response.json() if response.content else None

    def keep(self, name: str, response: httpx2.Response) -> None:
        self.answers[name] = repr(response.headers.multi_items()).encode() + response.content


@pytest.fixture(scope="module")
def used() -> Iterator[Used]:
    cage = Cage()
    settings = {
        "ORRERY_LOG_LEVEL": "DEBUG",
        "ORRERY_LOG_FORMAT": "json",
        "ORRERY_BOOTSTRAP_EMAIL": "owner@example.test",
        "ORRERY_BOOTSTRAP_PASSWORD": cage.new("bootstrap-password"),
        "ORRERY_BOOTSTRAP_API_KEY": cage.new("bootstrap-key"),
        "ORRERY_MASTER_KEY": cage.new("master-key"),
        "ORRERY_MASTER_KEY_PREVIOUS": cage.new("previous-master-key"),
        "ORRERY_JWT_KEY": cage.new("jwt-key"),
    }
    with open_folder() as folder:
        platform = Platform(folder / "data", settings)
        platform.start()
        try:
            for name in ("database_url", "migration_url", "redis_url"):
                cage.put(name, str(urlsplit(platform.services()[name]).password))
            headers = {"Authorization": f"Bearer {settings['ORRERY_BOOTSTRAP_API_KEY']}"}
            with httpx2.Client(base_url=platform.url, headers=headers, timeout=30, trust_env=False) as client:
                used = Used(platform, cage, client)
                use(used)
                rotated = orrery(["secrets", "rotate", "--json"], platform.data_dir, **settings)
                assert rotated.returncode == 0, rotated.stderr
                used.answers["orrery secrets rotate"] = (rotated.stdout + rotated.stderr).encode()
                yield used
        finally:
            platform.stop()


def use(used: Used) -> None:
    """Everything that secrets are for, and everything that goes wrong with them."""
    write_secrets(used)
    send_nonsense(used)
    make_and_misuse_keys(used)
    log_in(used)
    work(used)


def write_secrets(used: Used) -> None:
    cage, path = used.cage, "/api/v1/secrets"
    body = {"name": "weather", "value": cage.new("secret"), "description": "Forecasts"}
    once = {"Idempotency-Key": "weather"}
    made = used.call("POST", path, 201, json=body, headers=once)
    assert used.call("POST", path, 201, json=body, headers=once) == made  # its answer was stored
    used.call("POST", path, 409, json=body | {"value": cage.new("duplicate")})
    used.call("PUT", f"{path}/weather/value", 200, json={"value": cage.new("replacement")})
    used.call("PUT", f"{path}/nobody/value", 404, json={"value": cage.new("homeless")})
    used.call("PATCH", f"{path}/weather", 200, json={"description": "Rain"})
    used.call("POST", path, 201, json={"name": "gone", "value": cage.new("deleted")})
    used.call("DELETE", f"{path}/gone", 204)
    used.ids["secret"] = made["id"]


def send_nonsense(used: Used) -> None:
    wrong: list[Any] = [
        {"name": "weather"},
        {"value": 0},
        {"valeu": 0},
        {"name": "w-1", "value": 0, "extra": 1},
        {"name": 0, "value": "right"},
        {"password": 0, "api_key": 0},
    ]
    for number, body in enumerate(wrong):
        for kind in ("text", "list", "name"):
            value = used.cage.new(f"wrong-{number}-{kind}")
            given = {"text": value, "list": [value], "name": {"value": value}}[kind]
            filled = {name: given if part == 0 else part for name, part in body.items()}
            used.call("POST", "/api/v1/secrets", 422, json=filled if number else given)
    text = used.cage.new("no-json")
    used.call("POST", "/api/v1/secrets", 400, content=text, headers={"Content-Type": "application/json"})
    for path in ("agents", "collections", "auth/api-keys", "search"):
        body = {"name": "X", "password": used.cage.new(f"astray-{path.replace('/', '-')}")}
        used.call("POST", f"/api/v1/{path}", 422, json=body)


def make_and_misuse_keys(used: Used) -> None:
    path = "/api/v1/auth/api-keys"
    once = {"Idempotency-Key": "second"}
    answer = used.client.post(path, json={"name": "second"}, headers=once)  # the key's one appearance
    made = answer.raise_for_status().json()
    used.call("POST", path, 409, json={"name": "second"}, headers=once)
    whole = made["key"]
    used.cage.put("created-key", whole.split("_", 2)[2])
    bearer = {"Authorization": f"Bearer {whole}"}
    used.call("GET", "/api/v1/auth/me", 200, headers=bearer)
    used.call("GET", f"/api/v1/agents/{whole}", 404)
    used.call("GET", "/api/v1/agents", 404, headers={"X-Project-Id": whole})
    used.call("GET", f"/api/v1/runs?agent={whole}", 404)
    used.call("DELETE", f"{path}/{made['id']}", 204)
    used.call("GET", "/api/v1/auth/me", 401, headers=bearer)
    unknown = {"Authorization": f"Bearer {used.cage.new('unknown-key')}"}
    used.call("GET", "/api/v1/auth/me", 401, headers=unknown)
    used.ids["key_id"] = used.call("POST", path, 201, json={"name": "kept"})["id"]
    used.answers.popitem()  # holds that key, which nobody uses


def log_in(used: Used) -> None:
    cage, path, email = used.cage, "/api/v1/auth", "owner@example.test"
    right = {"email": email, "password": cage.birds["bootstrap-password"]}
    grant = (
        used.client.post(f"{path}/login", json=right).raise_for_status().json()
    )  # the tokens' one appearance
    bearer = {"Authorization": f"Bearer {grant['access_token']}"}
    used.call("GET", f"{path}/me", 200, headers=bearer)
    fresh = used.client.post(f"{path}/refresh", json={"refresh_token": grant["refresh_token"]})
    for name, token in (grant | {"next_token": fresh.raise_for_status().json()["refresh_token"]}).items():
        if name.endswith("_token") and token:
            cage.put(name, token.rpartition(".")[2] if name == "access_token" else token.split("_", 3)[3])
    wrong: list[Any] = [
        right | {"password": cage.new("wrong-password")},
        right | {"password": [cage.new("listed-password")]},
        right | {"pasword": cage.new("misspelt-password")},
        {"email": [cage.new("mislaid-password")]},
        cage.new("bare-password"),
    ]
    for status, body in zip((401, 422, 422, 422, 422), wrong, strict=True):
        used.call("POST", f"{path}/login", status, json=body)
    used.call("GET", f"{path}/sessions/{grant['refresh_token']}", 405)
    used.call("POST", f"{path}/refresh", 401, json={"refresh_token": cage.new("unknown-token")})
    change = {"current_password": right["password"], "new_password": cage.new("new-password") + "-Long1"}
    used.call("POST", f"{path}/password", 204, json=change, headers=bearer)
    used.call("POST", f"{path}/logout", 204, json={"refresh_token": grant["refresh_token"]})


def work(used: Used) -> None:
    """A document and runs, one of which fails, while all those secrets are there."""
    with httpx2.Client(
        base_url=used.client.base_url.join("/api/v1"),
        headers=used.client.headers,
        timeout=30,
        trust_env=False,
    ) as client:
        taken = upload(client, make_collection(client, "notes"), [("note.txt", b"The gold is safe.")])
        wait_for(client, taken, done=1)
        body = {"name": "Asker", "slug": "asker", "graph": asking_graph("default-chat", collection="notes")}
        client.post("/agents", json=body).raise_for_status()
        client.post("/agents/asker/publish").raise_for_status()
    run = used.call("POST", "/api/v1/agents/asker/runs", 200, json={"input": {"name": "Where is the gold?"}})
    used.call("POST", "/api/v1/agents/asker/runs", 422, json={"input": {"nobody": 1}})
    graph = HELLO_GRAPH | {"bindings": {"models": {"main": "nothing"}}}
    used.call("POST", "/api/v1/agents/asker/validate", 200, json={"graph": graph})
    used.call("POST", "/api/v1/search", 200, json={"collections": ["notes"], "query": "gold"})
    used.ids |= {
        "agent": "asker",
        "run_id": run["id"],
        "collection": "notes",
        "document_id": taken.ids[0],
        "job_id": taken.jobs[0],
    }


class TestSecrets:
    def test_are_found_where_they_are(self, used: Used) -> None:
        """The search itself works: in plain, shortened, as digits, in Base64."""
        value = used.cage.birds["secret"]
        assert used.cage.seen_in(b"x" + value.encode() + b"x") == ["secret"]
        assert used.cage.seen_in(value.encode().hex().encode()) == ["secret"]
        for form in forms(middle(value)):
            assert used.cage.seen_in(form) == ["secret"]
        assert used.cage.seen_in(used.cage.mark.encode()) == ["a part of one"]
        assert used.cage.seen_in(Cage().new("other").encode()) == []
        assert len(used.cage.birds) > 30

    def test_are_in_no_answer(self, used: Used) -> None:
        found = {name: used.cage.seen_in(answer) for name, answer in used.answers.items()}
        assert {name: birds for name, birds in found.items() if birds} == {}
        assert len(used.answers) > 30

    def test_are_in_nothing_that_can_be_got(self, used: Used) -> None:
        good = 0
        for path, response in crawl(used.client, used.ids):
            assert used.cage.seen_in(response.content) == [], path
            good += response.status_code == 200
        assert good > 20

    def test_are_in_no_event(self, used: Used) -> None:
        with httpx2.Client(
            base_url=used.client.base_url.join("/api/v1"), headers=used.client.headers, trust_env=False
        ) as client:
            log = events(client, used.ids["run_id"])
        assert used.cage.seen_in(repr(log).encode()) == []
        assert len(log) > 5

    def test_are_in_no_log_of_server_or_worker(self, used: Used) -> None:
        log = used.platform.log.read_bytes()
        assert used.cage.seen_in(log) == []
        assert b'"level": "debug"' in log
        assert b'"status": 422' in log
        assert b"orr_\xe2\x80\xa6" in log or b"orr_\\u2026" in log  # a key in a path, masked

    def test_are_in_no_table(self, used: Used) -> None:
        dump = table_dump(used.platform.services()["migration_url"])
        assert {name: used.cage.seen_in(rows) for name, rows in dump.items() if used.cage.seen_in(rows)} == {}
        held = {name for name, rows in dump.items() if rows}
        assert {"secrets", "organization_keys", "installation_keys", "api_keys", "agent_runs"} <= held
        assert any(name.startswith("agent_run_events_") for name in held)
        assert any(name.startswith("agent_run_steps_") for name in held)

    def test_are_not_with_the_broker(self, used: Used) -> None:
        assert used.cage.seen_in(broker_dump(used.platform.services()["redis_url"])) == []

    def test_are_in_no_command_line(self, used: Used) -> None:
        lines = command_lines()
        assert used.cage.seen_in(lines) == []
        assert b"celery" in lines

    def test_are_in_no_file_but_those_for_this_machine(self, used: Used) -> None:
        holders, count = set(), 0
        for place, content in files(used.platform, but="secrets"):
            count += 1
            if used.cage.seen_in(content):
                holders.add(str(place))
        assert holders == KEPT_FOR_THIS_MACHINE
        modes = {stat.S_IMODE((used.platform.data_dir / name).stat().st_mode) for name in holders}
        assert modes == {0o600}
        assert count > 500
