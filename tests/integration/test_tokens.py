"""Tokens: what is kept of them, how they end, how one takes over from another, and the commands for all that."""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from datetime import UTC, datetime, timedelta
from threading import Barrier, Thread

import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg import sql
from psycopg.conninfo import make_conninfo

from syncline import db, tokens
from syncline.cli import main
from syncline.errors import ConfigurationError, DatabaseError, RefusedError
from syncline.tokens import create_token, find_token, has_live_token, list_tokens, parse, revoke_token, touch_token
from tests.driver import Driver


def call(driver: Driver, *arguments: str) -> Result:
    """Run a command in the driver's project."""
    with chdir(driver.root):
        return CliRunner().invoke(main, ["token", *arguments], env={"DATABASE_URL": driver.dsn})


def age(connection: db.Connection, **times: str) -> None:
    """Set times of all tokens, as SQL."""
    for column, value in times.items():
        connection.execute(
            sql.SQL("update syncline.tokens set {} = {}").format(sql.Identifier(column), sql.SQL(value))  # type: ignore[arg-type]
        )


@contextmanager
def as_role(connection: db.Connection, *grants: str) -> Iterator[db.Connection]:
    """Another connection, of a database user that has these grants alone."""
    name = f"role_{connection.info.dbname}"
    role = sql.Identifier(name)
    connection.execute(sql.SQL("create role {} login password 'one-for-a-test'").format(role))
    for grant in grants:
        connection.execute(sql.SQL(grant).format(role))  # type: ignore[arg-type]
    try:
        dsn = make_conninfo(
            connection.info.dsn,
            user=name,
            password="one-for-a-test",
            host=connection.info.host,
            port=connection.info.port,
        )
        with db.connect(dsn) as other:
            yield other
    finally:
        connection.execute(sql.SQL("drop owned by {}").format(role))
        connection.execute(sql.SQL("drop role {}").format(role))


def test_a_token_has_256_random_bits_and_its_secret_is_kept_nowhere(connection: db.Connection) -> None:
    """Tokens look as told, differ, and no column of the control schema holds a secret."""
    made = [create_token(connection, f"one-{number}", "viewer") for number in range(20)]
    parsed = [parse(token.token) for token in made]
    assert [item and item[0] for item in parsed] == [token.token_id for token in made]
    secrets = {item[1] for item in parsed if item}
    assert len(secrets) == 20
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}", secret) for secret in secrets)
    kept = str(connection.execute("select t::text, l::text from syncline.tokens t, syncline.log_events l").fetchall())
    kept += str(connection.execute("select t::text from syncline.tokens t").fetchall())
    assert not [secret for secret in secrets if secret in kept]


@pytest.mark.parametrize(
    "text", ["", "sync_", "sync_1_short", "sync_0_" + "a" * 43, "sync_1_" + "a" * 44, "sync_x_" + "a" * 43]
)
def test_what_is_no_token_is_told_apart(text: str) -> None:
    """A text of another form is no token, and is looked up nowhere."""
    assert parse(text) is None


def test_a_token_is_told_by_its_secret_alone(connection: db.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the whole secret fits, by a comparison whose time tells nothing; what the database proves is no digest."""
    made = create_token(connection, "dashboard", "operator", expires_in=timedelta(days=90))
    found = find_token(connection, made.token_id)
    assert found is not None
    assert (found.name, found.role, found.state, found.is_expiring) == ("dashboard", "operator", "live", False)
    compared: list[int] = []
    compare = hmac.compare_digest

    def counted(one: bytes, other: bytes) -> bool:
        compared.append(len(one))
        assert len(one) == len(other)
        return compare(one, other)

    monkeypatch.setattr(tokens.hmac, "compare_digest", counted)
    secret = made.token.rpartition(f"_{made.token_id}_")[2]
    assert found.is_secret(secret)
    assert not found.is_secret(secret[:-1] + ("A" if secret[-1] != "A" else "B"))
    assert not found.is_secret("")
    assert compared == [32, 32, 32]
    kept = connection.execute("select digest from syncline.tokens").fetchone()
    assert kept
    assert found.proof != bytes(kept["digest"])
    assert find_token(connection, made.token_id + 1) is None


def test_names_are_of_one_live_token(connection: db.Connection) -> None:
    """A name is free again once its token has ended, however it did, and never before."""
    create_token(connection, "app", "viewer")
    with pytest.raises(RefusedError, match="a live token is named app"):
        create_token(connection, "app", "admin")
    revoke_token(connection, "app", "ada")
    create_token(connection, "app", "viewer", expires_in=timedelta(days=1))
    age(connection, expires_at="clock_timestamp() - interval '1 second'")
    create_token(connection, "app", "viewer")
    assert [row["state"] for row in list_tokens(connection)] == ["revoked", "expired", "live"]


def test_two_at_once_do_not_get_one_name(database: str) -> None:
    """Of two that make a token of one name at the same moment, one is refused."""
    barrier, ended = Barrier(2), []

    def make() -> None:
        with db.connect(database) as connection:
            barrier.wait()
            try:
                create_token(connection, "app", "viewer")
                ended.append("made")
            except RefusedError:
                ended.append("refused")

    threads = [Thread(target=make) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ended) == ["made", "refused"]


@pytest.mark.parametrize("name", ["", "-x", "a b", "a" * 64, "SYNCLINE_SECRET_KEY", "naïve", "a\n", "x;y"])
def test_names_that_would_mislead_are_refused(connection: db.Connection, name: str) -> None:
    """Names go to logs and reports: those that could pass for something else are refused, and no token is made."""
    with pytest.raises(ConfigurationError, match="no usable name"):
        create_token(connection, name, "viewer")
    assert list_tokens(connection) == []


def test_a_replaced_token_ends_after_the_overlap(connection: db.Connection) -> None:
    """The old one lives on for the overlap, never longer than it would have, and only where there is one."""
    create_token(connection, "old", "operator")
    before = datetime.now(UTC)
    made = create_token(connection, "new", "operator", replaces="old", overlap=timedelta(hours=24))
    assert made.replaced_until is not None
    assert abs(made.replaced_until - before - timedelta(hours=24)) < timedelta(minutes=1)
    third = create_token(connection, "third", "operator", replaces="old", overlap=timedelta(days=30))
    assert third.replaced_until == made.replaced_until
    with pytest.raises(ConfigurationError, match="no live token named lost"):
        create_token(connection, "fourth", "operator", replaces="lost")
    assert [row["name"] for row in list_tokens(connection)] == ["old", "new", "third"]
    again = create_token(connection, "new", "operator", replaces="new")
    assert again.token_id != made.token_id
    assert [row["state"] for row in list_tokens(connection)] == ["live", "expired", "live", "live"]


def test_use_is_written_once_a_minute_and_expiry_logged_once_a_day(connection: db.Connection) -> None:
    """However often a token is used: one write a minute, and one log event a day in its last 14 days."""
    token_id = create_token(connection, "app", "viewer", expires_in=timedelta(days=15)).token_id

    def used() -> object:
        return list_tokens(connection)[0]["last_used_at"]

    def events() -> list[dict[str, object]]:
        rows = connection.execute(
            "select level, event, detail ->> 'token' as token from syncline.log_events"
        ).fetchall()
        return [dict(row) for row in rows]

    assert used() is None
    touch_token(connection, token_id)
    first = used()
    touch_token(connection, token_id)
    assert used() == first is not None
    assert events() == []
    age(
        connection,
        expires_at="clock_timestamp() + interval '13 days'",
        last_used_at="clock_timestamp() - interval '2 minutes'",
    )
    touch_token(connection, token_id)
    touch_token(connection, token_id)
    assert used() != first
    assert events() == [{"level": "warning", "event": "token_expiring", "token": "app"}]
    age(connection, warned_at="clock_timestamp() - interval '25 hours'")
    touch_token(connection, token_id)
    assert len(events()) == 2


def test_the_runners_database_user_needs_no_right_on_the_table(connection: db.Connection) -> None:
    """Who may only execute functions finds, touches and lists tokens; reads no digest; makes and revokes none."""
    made = create_token(connection, "app", "viewer")
    grants = ["grant usage on schema syncline to {}", "grant execute on all functions in schema syncline to {}"]
    with as_role(connection, *grants) as runner:
        found = find_token(runner, made.token_id)
        assert found is not None
        assert found.is_secret(made.token.rpartition("_1_")[2])
        touch_token(runner, made.token_id)
        assert has_live_token(runner)
        with pytest.raises(DatabaseError, match="permission denied for table tokens"), db.translated():
            runner.execute("select * from syncline.tokens")
        with pytest.raises(RefusedError, match="may not make or revoke tokens"):
            create_token(runner, "mine", "admin")
        with pytest.raises(RefusedError, match="may not make or revoke tokens"):
            revoke_token(runner, "app")


def test_others_may_not_even_ask(connection: db.Connection) -> None:
    """A reader who may use the schema is refused each function that acts for the owner."""
    create_token(connection, "app", "viewer")
    with as_role(connection, "grant usage on schema syncline to {}") as reader:
        for act in (lambda: find_token(reader, 1), lambda: touch_token(reader, 1), lambda: list_tokens(reader)):
            with pytest.raises(DatabaseError, match="permission denied for function"):
                act()


def test_functions_that_act_for_the_owner_pin_their_path(connection: db.Connection) -> None:
    """A security definer function of tokens cannot be led to objects of its caller."""
    rows = connection.execute(
        "select proname, proconfig from pg_proc where prosecdef and pronamespace = 'syncline'::regnamespace"
    ).fetchall()
    assert {row["proname"] for row in rows} >= {"find_token", "touch_token", "list_tokens"}
    assert [row["proname"] for row in rows if not any("search_path=" in item for item in row["proconfig"] or [])] == []


def test_the_table_refuses_what_the_functions_would_not_write(connection: db.Connection) -> None:
    """A role that there is not, a digest that is none and a misleading name are refused by the table too."""
    statement = "insert into syncline.tokens (name, digest, role, created_by) values (%s, %s, %s, 'x')"
    for values in (("a", b"x" * 32, "root"), ("a", b"short", "viewer"), ("a\nb", b"x" * 32, "viewer")):
        with pytest.raises(psycopg.errors.CheckViolation):
            connection.execute(statement, values)


# commands


def test_create_prints_the_token_once(driver: Driver) -> None:
    """Standard output is the token alone; nothing shows it again."""
    made = call(driver, "create", "dashboard", "--role", "viewer", "--expires", "90d")
    assert made.exit_code == 0, made.output
    token = made.stdout.strip()
    assert parse(token)
    assert "not shown again" in made.stderr
    listed = call(driver, "list")
    assert "dashboard" in listed.stdout
    assert parse(token)[1] not in listed.output + call(driver, "list", "--json").output  # type: ignore[index]


def test_rotation_by_commands(driver: Driver) -> None:
    """create, create --replace, list and revoke tell as JSON what became of each token."""
    call(driver, "create", "old", "--role", "operator", "--expires", "10d")
    warned = call(driver, "list")
    assert "syncline token create NEW --role operator --replace old" in warned.stderr
    made = json.loads(
        call(driver, "create", "new", "--role", "operator", "--replace", "old", "--overlap", "2h", "--json").stdout
    )
    assert made["replaced"] == "old"
    assert datetime.fromisoformat(made["replaced_until"]) - datetime.now(UTC) < timedelta(hours=2, minutes=1)
    assert made["expires_at"] is None
    assert parse(made["token"])
    rows = json.loads(call(driver, "list", "--json").stdout)["tokens"]
    assert [(row["name"], row["state"], row["is_expiring"]) for row in rows] == [
        ("old", "live", True),
        ("new", "live", False),
    ]
    assert set(rows[0]) == {
        "token_id", "name", "role", "state", "created_at", "created_by", "expires_at", "last_used_at", "is_expiring",
    }  # fmt: skip
    assert json.loads(call(driver, "revoke", "old", "--json").stdout) == {"revoked": "old", "token_id": 1}
    gone = call(driver, "revoke", "old")
    assert gone.exit_code == 2
    assert "there is no live token named old" in gone.stderr


def test_wrong_usage_is_told(driver: Driver) -> None:
    """A wrong role, a duration that is none and a taken name end with their exit codes, and make no token."""
    assert call(driver, "create", "x", "--role", "root").exit_code == 2
    assert call(driver, "create", "x").exit_code == 2
    wrong = call(driver, "create", "x", "--role", "viewer", "--expires", "soon")
    assert (wrong.exit_code, "'soon' is no duration" in wrong.stderr) == (2, True)
    assert list_tokens(driver.connection) == []
    call(driver, "create", "x", "--role", "viewer")
    assert call(driver, "create", "x", "--role", "viewer").exit_code == 3
