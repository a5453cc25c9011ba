"""Settings from the environment."""

from pathlib import Path
from typing import Any, get_origin

import pytest
from pydantic import SecretStr, ValidationError
from pydantic_settings import NoDecode

from app.core.config import Settings

CANARY = "canary-7f3a9b-never-shown-anywhere-0000"


class TestSettings:
    def test_come_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ORRERY_PORT", "9000")
        monkeypatch.setenv("ORRERY_DATA_DIR", "/srv/orrery")
        found = Settings(_env_file=None)
        assert (found.port, found.run_dir) == (9000, Path("/srv/orrery/run"))

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("PORT", "70000"),
            ("LEASE_S", "1"),
            ("INGEST_CONCURRENCY", "0"),
            ("RUN_TIMEOUT_S", "soon"),
            ("AUTH_CACHE_S", "5.1"),  # as soon must a revocation bite
            ("STREAM_RECHECK_S", "3.1"),
            ("PASSWORD_MIN_LENGTH", "7"),
            ("PUBLIC_URL", "orrery.example"),
            ("PUBLIC_URL", "ftp://orrery.example"),
            ("TRUSTED_PROXIES", '["proxy.example"]'),
            ("TRUSTED_PROXIES", '["10.0.0.1/8"]'),
            ("OPENAI_BASE_URL", "localhost:11434"),
            ("OPENAI_BASE_URL", "http://user:password@localhost/v1"),
        ],
    )
    def test_that_make_no_sense_are_refused(
        self, monkeypatch: pytest.MonkeyPatch, name: str, value: str
    ) -> None:
        monkeypatch.setenv(f"ORRERY_{name}", value)
        with pytest.raises(ValidationError, match=f"(?i){name}"):
            Settings(_env_file=None)

    @pytest.mark.parametrize(
        "value", ["10.0.0.1, 10.1.0.0/16", '["10.0.0.1", "10.1.0.0/16"]', "10.0.0.1,10.1.0.0/16,"]
    )
    def test_that_are_lists_take_commas_or_json(self, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
        monkeypatch.setenv("ORRERY_TRUSTED_PROXIES", value)
        assert Settings(_env_file=None).trusted_proxies == ["10.0.0.1", "10.1.0.0/16"]

    def test_that_are_lists_are_all_read_so(self) -> None:
        """Others pydantic-settings would take for JSON, and end with a traceback where they are none."""
        lists = [f for f in Settings.model_fields.values() if get_origin(f.annotation) in (list, tuple, dict)]
        assert len(lists) >= 5
        assert all(NoDecode in field.metadata for field in lists)

    def test_that_are_lists_may_be_empty(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ORRERY_CORS_ORIGINS", "")
        assert Settings(_env_file=None).cors_origins == []

    def test_never_show_their_secrets(self) -> None:
        secrets = [name for name, field in Settings.model_fields.items() if "Secret" in str(field.annotation)]
        values: dict[str, Any] = dict.fromkeys(secrets, SecretStr(CANARY))
        settings = Settings(_env_file=None, **values)
        assert len(secrets) >= 6
        assert CANARY not in repr(settings) + str(settings) + settings.model_dump_json()


class TestProviders:
    """Settings that clients of the providers read, too, under the names that those read."""

    def test_are_read_under_their_usual_names(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-usual")
        monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:11434/v1/")
        found = Settings(_env_file=None)
        assert found.openai_api_key == SecretStr("sk-usual")
        assert found.openai_base_url == "http://localhost:11434/v1"

    @pytest.mark.parametrize(("ours", "read"), [("sk-ours", SecretStr("sk-ours")), ("", None), (" ", None)])
    def test_are_hidden_by_ours(
        self, monkeypatch: pytest.MonkeyPatch, ours: str, read: SecretStr | None
    ) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-usual")
        monkeypatch.setenv("ORRERY_OPENAI_API_KEY", ours)
        assert Settings(_env_file=None).openai_api_key == read

    def test_that_are_empty_are_not_set(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "ORRERY_DEFAULT_CHAT_MODEL"):
            monkeypatch.setenv(name, "")
        found = Settings(_env_file=None)
        assert (found.openai_api_key, found.openai_base_url, found.default_chat_model) == (None, None, None)

    def test_come_from_the_file_beside_the_platform(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / ".env").write_text("OPENAI_API_KEY=sk-file\n")
        monkeypatch.chdir(tmp_path)
        assert Settings().openai_api_key == SecretStr("sk-file")


class TestEmbedded:
    @pytest.mark.parametrize(
        ("database", "redis", "embedded"),
        [(None, None, True), ("postgresql://x", None, True), ("postgresql://x", "redis://x", False)],
    )
    def test_is_said_where_any_service_is_ours(
        self, database: str | None, redis: str | None, embedded: bool
    ) -> None:
        settings = Settings(
            database_url=SecretStr(database) if database else None,
            redis_url=SecretStr(redis) if redis else None,
            _env_file=None,
        )
        assert settings.embedded is embedded
