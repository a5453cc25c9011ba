"""Files and folders that only one user may read."""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path

from app.embedded.account import Account


def private_folder(path: Path, *, account: Account | None = None) -> Path:
    """`path` as a folder of mode 0700, owned by `account` if given; made when missing."""
    path.mkdir(mode=0o700, exist_ok=True)
    path.chmod(0o700)
    if account:
        os.chown(path, account.uid, account.gid)
    return path


def write_private(path: Path, text: str, *, account: Account | None = None) -> None:
    """Replaces `path` atomically by a file of mode 0600, owned by `account` if given."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            if account:
                os.fchown(descriptor, account.uid, account.gid)
            stream.write(text)
            stream.flush()
            os.fsync(descriptor)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def kept_secret(path: Path) -> str:
    """The secret in `path`: 128 bits in hexadecimal, generated at the first call and then kept."""
    if path.exists():
        path.chmod(0o600)
        return path.read_text(encoding="utf-8").strip()
    secret = secrets.token_hex(16)
    write_private(path, secret)
    return secret
