"""The commands that change keys and passwords, on the machine itself."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from app.cli.commands.output import AsJson
from app.cli.credentials import save_credentials
from app.cli.keys import create_key
from app.cli.rotating import left_out, rotate_secrets
from app.cli.users import set_password
from app.core.config import Settings, get_settings
from app.db.failures import explained
from app.embedded import read_services_file
from app.resources import demanded

cli = typer.Typer()
keys = typer.Typer(no_args_is_help=True, help="API keys.")
cli.add_typer(keys, name="keys")
secrets = typer.Typer(no_args_is_help=True, help="Encryption of stored secrets.")
cli.add_typer(secrets, name="secrets")
users = typer.Typer(no_args_is_help=True, help="People who log in.")
cli.add_typer(users, name="users")


def _database_url(settings: Settings) -> str:
    """That of the running embedded services, else the one that is set."""
    found = read_services_file(settings)
    return found.database_url if found else demanded(settings.database_url, "ORRERY_DATABASE_URL")


@keys.command("create")
def keys_create(
    name: Annotated[str, typer.Option(help="What the key is for.")] = "cli",
    permission: Annotated[list[str] | None, typer.Option(help="Only this; may be repeated.")] = None,
    project: Annotated[str | None, typer.Option(help="Slug or id of the project it is bound to.")] = None,
    save: Annotated[bool, typer.Option(help="Keep it for this command line.")] = False,
    as_json: AsJson = False,
) -> None:
    """Create an API key for the owner of this installation; its secret is shown once."""
    settings = get_settings()
    url = _database_url(settings)
    with explained(url, setting="ORRERY_DATABASE_URL"):
        made = asyncio.run(create_key(settings, url, name=name, permissions=permission, project=project))
    if save:
        save_credentials(settings, made.key)
    typer.echo(json.dumps({"id": str(made.id), "key": made.key}) if as_json else made.key)


@users.command("set-password")
def users_set_password(
    email: Annotated[str | None, typer.Argument(help="Whose; without it, the owner's.")] = None,
    new_email: Annotated[
        str | None, typer.Option("--email", help="Log in with this one from now on.")
    ] = None,
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Set the password of a user of this installation, and end their sessions. API keys stay as they are."""
    settings = get_settings()
    url = _database_url(settings)
    password = _read_password(from_stdin=password_stdin)
    with explained(url, setting="ORRERY_DATABASE_URL"):
        done = asyncio.run(set_password(settings, url, email=email, password=password, new_email=new_email))
    if as_json:
        typer.echo(json.dumps(asdict(done)))
    else:
        typer.echo(f"{done.email} logs in with the new password; {done.sessions_ended} sessions were ended.")


def _read_password(*, from_stdin: bool) -> str:
    """One line, without its end."""
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    return str(typer.prompt("New password", hide_input=True, confirmation_prompt=True, err=True))


@secrets.command("rotate")
def secrets_rotate(
    data_keys: Annotated[bool, typer.Option(help="Also replace the data keys of all organizations.")] = True,
    as_json: AsJson = False,
) -> None:
    """Put ORRERY_MASTER_KEY in force in place of ORRERY_MASTER_KEY_PREVIOUS, and replace all data keys.

    Servers may go on working if they were started with both master keys. An interrupted rotation is
    finished by running it again. Exit code 1: something is left, which is named, with what to do about it.
    """
    settings = get_settings()
    url = _database_url(settings)
    console = Console(stderr=True, highlight=False, emoji=False)
    done = asyncio.run(rotate_secrets(settings, url, data_keys=data_keys, progress=console.print))
    if settings.master_key_previous is not None and not done.master_changed:
        console.print("ORRERY_MASTER_KEY was in force before: the master key is unchanged", markup=False)
    if as_json:
        typer.echo(json.dumps(asdict(done)))
    else:
        begun = "Finished the rotation that was begun before" if done.resumed else "Done"
        typer.echo(
            f"{begun}: {done.keys_wrapped} keys wrapped by the new master key, {done.data_keys_replaced} "
            f"data keys replaced, {done.secrets_sealed} secrets sealed again, {done.keys_left} keys left."
        )
    for line in done.unreadable:
        console.print(f"  left: {line}", markup=False)
    if warning := left_out(settings):
        console.print(warning, markup=False, soft_wrap=True)
    if done.keys_left or done.unreadable:
        raise typer.Exit(1)
