"""Logs hold what happened, never what was in hand."""

import json
import logging
from collections.abc import Iterator

import pytest
import structlog
from structlog.testing import capture_logs

from app.core.config import Settings
from app.core.ids import new_id
from app.core.logging import configure_logging
from app.core.security import new_api_key


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    before = structlog.get_config() if structlog.is_configured() else None
    yield
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()
    if before is not None:
        structlog.configure(**before)


def _fail(password: str) -> None:
    raise ValueError(f"wrong length: {len(password)}")


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_shows_no_local_variables(capsys: pytest.CaptureFixture[str], form: str) -> None:
    configure_logging(Settings(log_format=form, _env_file=None))
    secret = "-".join(("hunter2", "canary"))  # so that no line of source holds it
    try:
        _fail(secret)
    except ValueError:
        logging.getLogger("x").exception("it broke")
    logged = capsys.readouterr().err
    assert "wrong length" in logged
    assert secret not in logged


def test_json_lines_carry_the_bound_request_id(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(Settings(log_format="json", _env_file=None))
    with structlog.contextvars.bound_contextvars(request_id="r-1"):
        structlog.get_logger("x").info("seen", n=1)
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["request_id"], line["n"]) == ("seen", "r-1", 1)


@pytest.mark.parametrize("form", ["json", "console"])
def test_an_api_key_in_a_line_is_masked(capsys: pytest.CaptureFixture[str], form: str) -> None:
    configure_logging(Settings(log_format=form, _env_file=None))
    key = new_api_key(new_id())
    structlog.get_logger("x").info("request", path=f"/agents/{key}")
    logging.getLogger("y").warning("called with %s", key)
    logged = capsys.readouterr().err
    assert key not in logged
    assert logged.count("orr_…") == 2


def test_a_logger_that_was_used_before_follows_a_later_configuration() -> None:
    logger = structlog.get_logger("early")
    configure_logging(Settings(log_format="json", _env_file=None))
    logger.info("cached")
    configure_logging(Settings(log_format="json", _env_file=None))
    with capture_logs() as logs:
        logger.info("seen")
    assert [entry["event"] for entry in logs] == ["seen"]
