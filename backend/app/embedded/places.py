"""Where everything of one platform on this machine lies."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from app.core.errors import Misconfigured
from app.embedded.account import Account, service_account
from app.embedded.private import kept_secret, private_folder, write_private

SYSTEM_DIR = Path("/var/lib/orrery")
SERVICES_FILE = "services.json"


@dataclass(frozen=True, slots=True)
class Places:
    """Absolute folders, symbolic links resolved.

    `home` holds the folders of the services: the data folder itself, or, when we are root and the
    unprivileged `account` cannot reach the data folder (a private home stays private), a folder of its
    own below `system`.
    """

    data: Path
    home: Path
    system: Path
    account: Account | None

    @property
    def run(self) -> Path:
        return self.data / "run"

    @property
    def secrets(self) -> Path:
        return self.data / "secrets"

    @property
    def logs(self) -> Path:
        return self.data / "logs"

    @property
    def cluster(self) -> Path:
        """The PostgreSQL data directory."""
        return self.home / "postgres"

    @property
    def cluster_link(self) -> Path:
        """In the data folder: the cluster itself, or a link to it."""
        return self.data / "postgres"

    @property
    def redis(self) -> Path:
        return self.home / "redis"

    @property
    def relocated(self) -> bool:
        return self.home != self.data


def make_data_folder(data_dir: Path) -> Path:
    """The data folder, absolute, with `run/`, `secrets/` and `logs/` of mode 0700 in it.

    Raises:
        Misconfigured: it is a file, or a link to nowhere (a disk that is not mounted): a new one must not
            be made there.
    """
    data = data_dir.resolve()
    if data_dir.is_symlink() and not data.exists():
        raise Misconfigured(
            f"The data folder {str(data_dir)!r} is a link to {str(data)!r}, which does not exist: mount or "
            "make that folder, or set ORRERY_DATA_DIR to another."
        )
    if data.exists() and not data.is_dir():
        raise Misconfigured(
            f"The data folder {str(data_dir)!r} is a file: move it away, or set ORRERY_DATA_DIR to a folder."
        )
    if not data.exists():
        data.mkdir(parents=True, exist_ok=True)
        # traversable by the unprivileged user who runs the services when we are root, listable by nobody
        data.chmod(0o711 if os.geteuid() == 0 else 0o700)
    for name in ("run", "secrets", "logs"):
        private_folder(data / name)
    return data


def find_places(data: Path, *, system_dir: Path) -> Places:
    """Decides where the services live; `data` comes from `make_data_folder`.

    Raises:
        Misconfigured: the data folder links to a cluster that is gone.
    """
    account = service_account(data / "postgres")
    system = system_dir.resolve()
    home = _home(data, system=system, account=account)
    if home != data:
        home.mkdir(mode=0o755, parents=True, exist_ok=True)
        for folder in (home, *home.parents):
            if folder.is_relative_to(system):
                folder.chmod(0o755)  # whatever the umask; the folders inside are private
        write_private(home / "data_dir", f"{data}\n")
    return Places(data=data, home=home, system=system, account=account)


def _home(data: Path, *, system: Path, account: Account | None) -> Path:
    link = data / "postgres"
    if link.is_symlink():
        target = link.resolve()
        if target.name != "postgres" or not target.is_dir():
            raise Misconfigured(
                f"{str(link)!r} points to {str(target)!r}, which is not a folder called 'postgres': "
                "restore it, or remove the link to begin with an empty database."
            )
        return target.parent
    if account is None or link.exists() or account.can_reach(data):
        return data
    # Named by a random identity rather than by the path: a folder that was deleted and made again at the
    # same path must not find the old cluster, whose passwords are gone.
    return system / kept_secret(data / "secrets" / "identity")
