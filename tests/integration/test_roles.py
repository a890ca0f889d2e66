"""Owner, runner and reader as real database roles: what each may do, and what it may not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from syncline import control, db, schedules, tokens
from syncline.config import read_project
from syncline.errors import ConfigurationError, DatabaseError, RefusedError
from syncline.migrate import is_up_to_date, migrate
from tests.driver import Driver
from tests.projects import Bench
from tests.roles import Roles, three_roles

FORBIDDEN_TO_READERS = [
    "select * from raw_shop.people",
    "select * from raw_shop.people_json",
    "select * from people_v1",
    "select * from people_v2",
    "select * from people_next",
    "select * from people_delta",
    "select * from syncline.tokens",
    "select * from syncline.row_errors",
    "select * from syncline.log_events",
    "select * from syncline.list_errors(null, null, null, null)",
    "select syncline.request_run()",
    "delete from people_current",
]

FORBIDDEN_TO_RUNNERS = [
    "select * from syncline.tokens",
    "delete from syncline.tokens",
    "alter table syncline.runs add column mine text",
    "drop table syncline.runs",
    "create table syncline.mine (id int)",
    "drop function syncline.log(text, text, jsonb)",
    "insert into syncline.migrations values (9999, 'mine', false)",
    "update syncline.function_files set fingerprint = ''",
    "update syncline.roles set role_name = current_user",
    "drop schema syncline cascade",
]


# A function of the runner's that fits better than Postgres' own: no cast, nothing polymorphic.
TRAPS = [
    "create table public.caught (who text)",
    "grant all on public.caught to public",
    """
    create function public.note() returns void language sql
    as $$ insert into public.caught values (current_user) $$
    """,
    *(
        f"""
        create function public.{name}({arguments}) returns {result} language plpgsql
        as $$ begin perform public.note(); return {body}; end $$
        """
        for name, arguments, result, body in [
            ("cardinality", "text[]", "integer", "pg_catalog.cardinality($1)"),
            ("array_remove", "text[], text", "text[]", "pg_catalog.array_remove($1, $2)"),
            ("format", "text, text", "text", "pg_catalog.format($1, $2)"),
            ("format", "text, name", "text", "pg_catalog.format($1, $2)"),
            ("format", "text, text, text", "text", "pg_catalog.format($1, $2, $3)"),
            ("quote_ident", "name", "text", "pg_catalog.quote_ident($1)"),
            ("pg_has_role", "text, text, text", "boolean", "pg_catalog.pg_has_role($1, $2, $3)"),
            ("has_table_privilege", "text, text", "boolean", "pg_catalog.has_table_privilege($1, $2)"),
            ("array_to_string", "text[], text", "text", "pg_catalog.array_to_string($1, $2)"),
        ]
    ),
    """
    create function public.unnest(text[]) returns setof text language sql
    as $$ select public.note(); select pg_catalog.unnest($1) $$
    """,
]


@pytest.fixture
def roles(bench: Bench) -> Iterator[Roles]:
    """Three roles that the bench's database, migrated by an administrator, was handed to."""
    with three_roles(bench.dsn) as made:
        made.grant()
        yield made


def refused(roles: Roles, role: str, statements: list[str]) -> list[str]:
    """Return those of the statements that Postgres let through; nothing stays of them."""
    through = []
    for statement in statements:
        with psycopg.connect(roles.dsn(role)) as connection:
            try:
                connection.execute(statement)  # type: ignore[arg-type]
                through.append(statement)
            except psycopg.errors.InsufficientPrivilege:
                pass
            finally:
                connection.rollback()
    return through


def test_the_runner_works_runs_and_the_reader_reads(bench: Bench, roles: Roles) -> None:
    """As runner, runs load, build, publish, refresh, prune and roll back; the reader reads current views alone."""
    as_runner = {"DATABASE_URL": roles.dsn(roles.runner)}
    first = bench.cli("run", "--json", **as_runner)
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout)["status"] == "succeeded"
    count = "select count(*) from people_current"
    assert roles.query(roles.reader, count) == [(50,)]
    bench.api.records["people"] = bench.api.records["people"][:45]
    again = bench.cli("run", "shop", "--full-refresh", **as_runner)
    assert again.returncode == 0, again.stderr
    assert roles.query(roles.reader, count) == [(45,)]
    for command in (["rollback"], ["prune"], ["verify"], ["status"], ["runs"], ["doctor"]):
        ended = bench.cli(*command, **as_runner)
        assert ended.returncode == 0, ended.stderr + ended.stdout
    assert roles.query(roles.reader, count) == [(50,)]
    assert refused(roles, roles.reader, FORBIDDEN_TO_READERS) == []
    assert refused(roles, roles.runner, FORBIDDEN_TO_RUNNERS) == []


def test_the_owner_runs_nothing_of_the_runners(bench: Bench, roles: Roles) -> None:
    """Functions that the runner puts in public, with better matching arguments, run in no session of the owner's."""
    actions = {
        "a job of pg_cron": "select syncline.fire_schedule('due')",
        "granting": f"select syncline.grant_roles('{roles.owner}', '{roles.runner}', '{roles.reader}')",
        "renewing": "select syncline.renew_grants()",
        "a token": "select syncline.create_token('by-hand', sha256('secret'), 'viewer')",
        "its end": "select syncline.revoke_token('by-hand')",
    }
    assert bench.cli("migrate", DATABASE_URL=roles.dsn(roles.runner)).returncode == 0
    with psycopg.connect(roles.dsn(roles.runner), autocommit=True) as runner:
        for statement in TRAPS:
            runner.execute(statement)  # type: ignore[arg-type]
        runner.execute("select syncline.create_schedule('due', '* * * * *')")
        runner.execute("update syncline.schedules set settled_at = now() - interval '1 hour'")
        runner.execute("select syncline.request_run()")
        caught = {row[0] for row in runner.execute("select who from public.caught").fetchall()}
        assert caught == {roles.runner}, "the traps catch those who walk into them"
        for action, statement in actions.items():
            roles.query(roles.owner, statement)
            assert roles.query(roles.runner, "select distinct who from public.caught") == [(roles.runner,)], action
    with bench.connect() as connection:
        connection.execute("delete from syncline.function_files; delete from syncline.streams where source = 'files'")
    for command in (["migrate"], ["migrate"], ["token", "create", "mine", "--role", "viewer"], ["token", "list"]):
        ended = bench.cli(*command, DATABASE_URL=roles.dsn(roles.owner))
        assert ended.returncode == 0, ended.stderr
        assert roles.query(roles.runner, "select distinct who from public.caught") == [(roles.runner,)], command


def test_what_acts_for_the_owner_pins_its_path_and_is_not_for_all(connection: db.Connection) -> None:
    """Each function that runs with the owner's rights looks in pg_catalog alone; others may not call."""
    owners = ("fire_schedule", "grant_roles", "renew_grants", "create_token", "revoke_token")
    query = """
        select
            proname, prosecdef as is_definer, array_to_string(proconfig, ' ') as config,
            exists (
                select from aclexplode(coalesce(proacl, acldefault('f', proowner))) as granted where granted.grantee = 0
            ) as is_for_all
        from pg_proc
        where pronamespace = 'syncline'::regnamespace and (prosecdef or proname = any (%s))
    """
    rows = connection.execute(query, (list(owners),)).fetchall()
    definers = {row["proname"] for row in rows if row["is_definer"]}
    assert definers >= {"drop_jobs", "link_schedule", "find_jobs", "reason_for_worker", "pg_cron_state", "list_tokens"}
    assert {row["proname"] for row in rows} == definers | set(owners)
    assert {row["config"] for row in rows} == {"search_path=pg_catalog, pg_temp"}
    assert [row["proname"] for row in rows if row["is_definer"] and row["is_for_all"]] == []


def test_who_may_only_use_the_schema_cannot_touch_jobs(bench: Bench, roles: Roles) -> None:
    """Another role with usage on the schema is refused what the runner is granted."""
    calls = [
        "select syncline.drop_jobs('default')",
        "select syncline.link_schedule('default')",
        "select * from syncline.find_jobs()",
        "select syncline.reason_for_worker('* * * * *', 'UTC')",
        "select syncline.pg_cron_state()",
    ]
    with bench.connect() as connection:
        connection.execute(f"grant usage on schema syncline to {roles.reader}")
    assert refused(roles, roles.reader, calls) == []
    assert refused(roles, roles.runner, calls) == calls


def test_the_runner_may_do_what_workers_and_the_api_do(bench: Bench, roles: Roles) -> None:
    """As runner: schedules, incidents, metrics, reports, tokens without digests; making tokens is the owner's."""
    assert bench.cli("migrate", DATABASE_URL=roles.dsn(roles.runner)).returncode == 0
    with db.connect(roles.dsn(roles.runner)) as connection:
        schedules.create_schedule(connection, "default", "* * * * *")
        schedules.fire_due(connection)
        assert db.call_value(connection, "trigger_schedule", "default") == 1
        db.call(connection, "check_incidents")
        assert db.call(connection, "metrics")
        assert db.call(connection, "run_reports", 5)
        assert control.cancel_run(connection, 1) == "cancelled"
        assert tokens.list_tokens(connection) == []
        with pytest.raises(RefusedError, match="may not make or revoke tokens"):
            tokens.create_token(connection, "mine", "admin")
    with db.connect(roles.dsn(roles.owner)) as connection:
        made = tokens.create_token(connection, "deploy", "operator")
    with db.connect(roles.dsn(roles.runner)) as connection:
        found = tokens.find_token(connection, made.token_id)
        assert found is not None
        assert found.name == "deploy"


def test_later_entities_and_streams_follow(bench: Bench, roles: Roles) -> None:
    """What comes after the grant is the runner's and readable by itself: streams that the owner makes, too."""
    for role in (roles.owner, roles.runner):
        with bench.connect() as connection:
            connection.execute(
                "drop schema if exists raw_files cascade; delete from syncline.streams where source = 'files'"
            )
        # Whoever migrates first makes the streams.
        migrated = bench.cli("migrate", DATABASE_URL=roles.dsn(role))
        assert "stream: files.visits" in migrated.stdout, migrated.stderr
        owners = """
            select distinct relowner::regrole::text from pg_class
            where relnamespace = 'raw_files'::regnamespace and relkind in ('r', 'v')
        """
        assert bench.query(owners) == [{"relowner": roles.runner}]
    ended = bench.cli("run", "files", DATABASE_URL=roles.dsn(roles.runner))
    assert ended.returncode == 0, ended.stderr
    assert roles.query(roles.reader, "select count(*) from visits_current") == [(2,)]
    assert refused(roles, roles.reader, ["select * from visits_v1", "select * from raw_files.visits"]) == []


def test_granting_again_changes_nothing_and_hands_over_what_there_is(driver: Driver) -> None:
    """A database that was run by an administrator is handed over whole, and a second grant is the same again."""
    driver.sync([{"id": 1, "name": "Ada", "email": "a@example.com"}])
    everything = """
        select c.oid::regclass::text, c.relowner::regrole::text, c.relacl::text
        from pg_class as c where c.relnamespace::regnamespace::text in ('syncline', 'public', 'raw_files')
        order by 1
    """
    with three_roles(driver.dsn) as roles:
        roles.grant()
        once = driver.connection.execute(everything).fetchall()
        roles.grant()
        assert driver.connection.execute(everything).fetchall() == once
        owners = {row["oid"]: row["relowner"] for row in once}
        assert owners["syncline.runs"] == roles.owner
        assert {owners[name] for name in ("people_v1", "people_current", "raw_files.people_json")} == {roles.runner}
        assert roles.query(roles.reader, "select name from people_current") == [("Ada",)]


def test_the_last_roles_count(driver: Driver) -> None:
    """Roles that lose their duty lose what came with it, whichever other duty they get; what is there goes on."""
    driver.sync([{"id": 1, "name": "Ada", "email": "a@example.com"}])
    held = """
        select thing
        from (
            select relname as thing, relacl as rights from pg_class
            union all select proname, proacl from pg_proc
            union all select nspname, nspacl from pg_namespace
            union all select datname, datacl from pg_database where datname = current_database()
        ) as made, aclexplode(rights) as granted
        where granted.grantee = %(role)s::regrole
        union all select oid::regclass::text from pg_class where relowner = %(role)s::regrole
        union all select nspname from pg_namespace where nspowner = %(role)s::regrole
        union all select roleid::regrole::text from pg_auth_members where member = %(role)s::regrole
    """

    def rights(role: str) -> set[str]:
        return {row["thing"] for row in driver.connection.execute(held, {"role": role})}

    with three_roles(driver.dsn) as former, three_roles(driver.dsn) as later:
        former.grant()
        driver.connection.execute(f"create schema made authorization {former.runner}")
        for role in (former.owner, former.runner, former.reader):
            assert rights(role)
        names = (later.owner, later.runner, later.reader)
        db.call(driver.connection, "grant_roles", *names, ["public", "made"])
        for role in (former.owner, former.runner, former.reader):
            assert rights(role) == set()
        assert later.query(later.reader, "select name from people_current") == [("Ada",)]
        Driver(later.dsn(later.runner), driver.root).sync([{"id": 1, "name": "Bob", "email": "a@example.com"}])
        assert later.query(later.reader, "select name from people_current") == [("Bob",)]
        db.call(driver.connection, "grant_roles", later.runner, later.reader)
        assert refused(later, later.owner, ["select * from syncline.runs", "select * from people_current"]) == []
        assert refused(later, later.reader, FORBIDDEN_TO_RUNNERS) == []
        assert later.query(later.reader, "select count(*) from syncline.streams") == [(1,)]
        db.call(driver.connection, "grant_roles", later.runner, later.owner, later.reader)
        assert refused(later, later.reader, ["select * from syncline.runs", "select * from people_v1"]) == []
        assert later.query(later.reader, "select name from people_current") == [("Bob",)]


def test_roles_with_capital_letters(driver: Driver) -> None:
    """Names that have to be quoted are names."""
    with three_roles(driver.dsn, 'A "%s" Role') as roles:
        roles.grant()
        roles.grant()
        Driver(roles.dsn(roles.runner), driver.root).sync([{"id": 1, "name": "Ada", "email": "a@example.com"}])
        assert roles.query(roles.reader, "select name from people_current") == [("Ada",)]
        db.call(driver.connection, "grant_roles", roles.owner, roles.reader, roles.runner)
        assert refused(roles, roles.runner, ["select * from syncline.runs"]) == []


def test_the_owner_sets_up_an_empty_database_alone(empty_database: str, tmp_path: Path) -> None:
    """With the database its own and the runner's role granted, the owner migrates and hands out rights itself."""
    with three_roles(empty_database) as roles, psycopg.connect(empty_database, autocommit=True) as admin:
        name = sql.Identifier(admin.info.dbname)
        admin.execute(sql.SQL("alter database {} owner to {}").format(name, sql.Identifier(roles.owner)))
        admin.execute(sql.SQL("grant {} to {}").format(sql.Identifier(roles.runner), sql.Identifier(roles.owner)))
        with db.connect(roles.dsn(roles.owner)) as connection:
            migrate(connection)
            roles.grant(roles.dsn(roles.owner))
        Driver(roles.dsn(roles.runner), tmp_path).sync([{"id": 1, "name": "Ada", "email": "a@example.com"}])
        assert roles.query(roles.reader, "select name from people_current") == [("Ada",)]
        assert refused(roles, roles.runner, FORBIDDEN_TO_RUNNERS) == []
        admin.execute(sql.SQL("alter database {} owner to current_user").format(name))


def test_migrating_as_the_runner_is_refused_clearly(bench: Bench, roles: Roles) -> None:
    """Where the control schema has to change, the runner's commands name the owner whose turn it is."""
    with bench.connect() as connection:
        connection.execute("update syncline.function_files set fingerprint = 'older' where name = 'runs.sql'")
    for command in ("migrate", "status"):
        ended = bench.cli(command, DATABASE_URL=roles.dsn(roles.runner))
        assert ended.returncode == 2
        assert f"it belongs to {roles.owner}" in ended.stderr
    assert bench.cli("migrate", DATABASE_URL=roles.dsn(roles.owner)).returncode == 0
    assert bench.cli("status", DATABASE_URL=roles.dsn(roles.runner)).returncode == 0


def test_a_user_without_rights_is_told_what_to_grant(driver: Driver) -> None:
    """A database user that was granted nothing, or less than a run needs, gets to know which grant is missing."""
    with three_roles(driver.dsn) as roles:
        with db.connect(roles.dsn(roles.runner)) as connection:
            with pytest.raises(ConfigurationError, match="may not use the schema syncline") as caught:
                is_up_to_date(connection, read_project(driver.root))
            assert "syncline.grant_roles(" in str(caught.value.hint)
        roles.grant()
        driver.connection.execute(f"revoke insert on syncline.runs from {roles.runner}")
        with db.connect(roles.dsn(roles.runner)) as connection:
            with pytest.raises(DatabaseError, match="42501") as denied:
                db.call(connection, "request_run")
            assert "grant_roles" in str(denied.value.hint)


def test_roles_that_cannot_be(driver: Driver) -> None:
    """Unknown roles, one role for two duties, and a caller without the right to grant are refused with a hint."""
    with three_roles(driver.dsn) as roles:
        for names, message in [
            ((roles.owner, "no such role", None), '"no such role"'),
            ((roles.owner, roles.owner, None), "not three roles"),
        ]:
            with pytest.raises(ConfigurationError, match=message):
                db.call(driver.connection, "grant_roles", *names)
        roles.grant()
        with db.connect(roles.dsn(roles.runner)) as connection, pytest.raises(RefusedError, match="may not hand out"):
            db.call(connection, "grant_roles", roles.owner, roles.runner)
