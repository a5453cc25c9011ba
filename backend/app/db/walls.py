"""Roles and row-level security, as the SQL that migrations execute.

`orrery_app` is the runtime role: it sees the rows of the organization in `app.org` and nothing else.
`orrery_system` works across organizations on the tables that list it; `orrery_app` may take it for one
transaction (SET LOCAL ROLE) but, being NOINHERIT, never has its rights by default.
"""

from __future__ import annotations

APP, SYSTEM = "orrery_app", "orrery_system"
_OWN = "org_id = NULLIF(current_setting('app.org', true), '')::uuid"


def roles() -> list[str]:
    """Creates both roles where absent. A password for `orrery_app` is the operator's business."""
    return [
        _create_role(APP, "LOGIN"),
        _create_role(SYSTEM, "NOLOGIN"),
        f"GRANT {SYSTEM} TO {APP}",
        f"GRANT USAGE ON SCHEMA public TO {APP}, {SYSTEM}",
    ]


def tenant_wall(table: str, *, system: str = "") -> list[str]:
    """Walls a tenant table. `system` lists what the system role may do on it (`SELECT, UPDATE`, …)."""
    statements = [
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
        f"CREATE POLICY own_rows ON {table} TO {APP} USING ({_OWN}) WITH CHECK ({_OWN})",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {APP}",
    ]
    return statements + (_system_access(table, system) if system else [])


def system_wall(table: str, system: str) -> list[str]:
    """Walls a global table: no rows for the runtime role, `system` rights for the system role."""
    return [
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
        *_system_access(table, system),
    ]


def _system_access(table: str, rights: str) -> list[str]:
    return [
        f"CREATE POLICY system_rows ON {table} TO {SYSTEM} USING (true) WITH CHECK (true)",
        f"GRANT {rights} ON {table} TO {SYSTEM}",
    ]


def _create_role(name: str, login: str) -> str:
    return (
        f"DO $$ BEGIN CREATE ROLE {name} {login} NOSUPERUSER NOBYPASSRLS NOINHERIT; "
        "EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
    )
