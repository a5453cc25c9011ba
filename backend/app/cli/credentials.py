"""Where the commands that speak HTTP find the server and a key: environment, else a 0600 file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from app.core.config import Settings
from app.core.errors import Misconfigured
from app.embedded import read_services_file


class Credentials(BaseModel):
    """A key of this installation, kept for its own command line."""

    model_config = ConfigDict(extra="forbid")

    api_key: str


@dataclass(frozen=True, slots=True)
class Server:
    url: str
    api_key: str


def credentials_path(settings: Settings) -> Path:
    return settings.data_dir / "credentials.json"


def save_credentials(settings: Settings, api_key: str) -> Path:
    """Writes the key so that only its owner can read it, replacing what was there."""
    path = credentials_path(settings)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(f".{os.getpid()}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(Credentials(api_key=api_key).model_dump_json() + "\n")
    fresh.replace(path)
    return path


def load_api_key(settings: Settings) -> str | None:
    """`ORRERY_API_KEY`, else the file's key, else the bootstrap key, else None."""
    if key := os.environ.get("ORRERY_API_KEY"):
        return key
    try:
        return Credentials.model_validate_json(credentials_path(settings).read_bytes()).api_key
    except FileNotFoundError:
        return settings.bootstrap_api_key.get_secret_value() if settings.bootstrap_api_key else None
    except ValidationError as error:
        raise Misconfigured(
            f"{str(credentials_path(settings))!r} is not a credentials file: delete it and run "
            "`orrery keys create --save`."
        ) from error


def find_server(settings: Settings) -> Server:
    """`ORRERY_URL`, else the running `orrery serve` of the data folder, else `Misconfigured`."""
    url = os.environ.get("ORRERY_URL")
    if url is None:
        found = read_services_file(settings)
        if found is None:
            raise Misconfigured(
                f"No server is running on the data folder {str(settings.data_dir.resolve())!r}: start "
                "`orrery serve`, name another folder with --data-dir, or set ORRERY_URL."
            )
        url = found.api_url
    elif not url.startswith(("http://", "https://")):
        raise Misconfigured(f"ORRERY_URL is {url!r}: it begins with http:// or https://.")
    key = load_api_key(settings)
    if key is None:
        raise Misconfigured("There is no API key: set ORRERY_API_KEY, or run `orrery keys create --save`.")
    return Server(url.rstrip("/"), key)
