"""Who may do what in the shared store, and how one gets in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rig.certificates import make_certificates
from rig.command_line import windlass
from rig.postgres import Postgres, PsqlError, member, running_postgres
from windlass.clock import utc_now
from windlass.store.address import Address
from windlass.store.base import Outcome, Snapshot, StoreError
from windlass.store.postgres import PostgresStore
from windlass_adapters.testing.documents import job
from windlass_schemas import Key, Status

ROLES = Path(__file__).resolve().parents[2] / "docker/postgres/roles.sql"
CANARY = "s3cret-canary"


@pytest.fixture
async def roles(postgres: Postgres, tmp_path: Path) -> str:
    """A database with the roles of the project, whose schema was made by its owner."""
    database = postgres.database().rpartition("/")[2]
    for _ in range(2):  # again changes nothing
        postgres.execute(ROLES.read_text(), database)
    url = postgres.url(database, "windlass_owner")
    ran = await windlass("migrate", "--to", url, "--state", str(tmp_path / "none"))
    assert ran.code == 0, ran.err
    return database


async def test_the_daemon_s_role_can_do_all_that_a_daemon_does(
    postgres: Postgres, roles: str
) -> None:
    store = await PostgresStore.open(
        Address.parse(postgres.url(roles, "windlass_daemon")), member()
    )
    await store.apply(Snapshot("folder:/s", "r1", "ann", (job(), job("b"))), utc_now())
    await store.apply(Snapshot("folder:/s", "r2", "ann", (job("b"),)), utc_now())
    assert store.roster is not None
    (first, _) = await store.roster.take(10, [])
    claim = await store.claim(first.key)
    assert claim is not None
    await store.commit(claim, Outcome(Status(sync="Synced")))
    gone = await store.claim(Key.parse("Job/train"))
    assert gone is not None
    await store.commit(gone, Outcome(gone.object.status, finalized=True))
    await store.published([1], utc_now())
    await store.roster.beat()
    await store.roster.leave()
    await store.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE history SET entry = ''",
        "DELETE FROM history",
        "TRUNCATE history",
        "DELETE FROM outbox",
        "UPDATE outbox SET event = ''",
        "UPDATE schema_version SET version = 0",
        "INSERT INTO schema_version VALUES (99)",
        "DROP TABLE history",
        "ALTER TABLE history DISABLE TRIGGER ALL",
        "CREATE TABLE mine (a int)",
        "SET ROLE windlass_owner",
    ],
)
def test_the_daemon_s_role_cannot_change_what_has_happened(
    postgres: Postgres, roles: str, statement: str
) -> None:
    with pytest.raises(PsqlError, match=r"permission denied|must be owner"):
        postgres.execute(f"SET search_path = windlass; {statement}", roles, "windlass_daemon")


def test_a_dashboard_s_role_looks_and_changes_nothing(postgres: Postgres, roles: str) -> None:
    look = "SELECT count(*) FROM windlass.overview; SELECT count(*) FROM windlass.history"
    assert postgres.execute(look, roles, "windlass_reader") == "0\n0\n"
    change = "SET default_transaction_read_only = off; DELETE FROM windlass.outbox"
    with pytest.raises(PsqlError, match="permission denied"):
        postgres.execute(change, roles, "windlass_reader")


def test_a_role_of_another_program_is_not_let_in(postgres: Postgres, roles: str) -> None:
    postgres.execute("CREATE ROLE stranger LOGIN")
    try:
        with pytest.raises(PsqlError, match="permission denied for database"):
            postgres.execute("SELECT 1", roles, "stranger")
    finally:
        postgres.execute("DROP ROLE stranger")


async def test_a_daemon_that_may_not_migrate_says_who_may(
    postgres: Postgres, tmp_path: Path
) -> None:
    database = postgres.database().rpartition("/")[2]
    postgres.execute(ROLES.read_text(), database)
    address = Address.parse(postgres.url(database, "windlass_daemon"))
    with pytest.raises(StoreError, match=r"refuses it .*permission denied.* docs/postgresql\.md"):
        await PostgresStore.open(address, member())


@pytest.fixture(scope="module")
def guarded() -> Iterator[Postgres]:
    """A server that lets in only those with a password, over TLS."""
    with running_postgres(tls=True) as started:
        started.execute(f"CREATE ROLE ann LOGIN SUPERUSER PASSWORD '{CANARY}'")
        yield started


@pytest.fixture
def secret(tmp_path: Path) -> str:
    """A reference to the password."""
    (tmp_path / "password").write_text(f"{CANARY}\n")
    return f"file:{tmp_path / 'password'}"


async def test_the_way_in_is_encrypted_and_the_server_is_known(
    guarded: Postgres, secret: str
) -> None:
    assert guarded.certificates is not None
    database = guarded.database().rpartition("/")[2]
    url = f"{guarded.url(database, 'ann')}?sslmode=verify-full"
    url += f"&sslrootcert={guarded.certificates.authority}"
    store = await PostgresStore.open(Address.parse(url, secret), member("ann"))
    encrypted = guarded.execute(
        "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)"
        " WHERE application_name = 'windlass ann'"
    )
    assert encrypted.split() == ["t"]
    await store.close()


async def test_a_server_that_cannot_prove_who_it_is_gets_no_password(
    guarded: Postgres, secret: str, tmp_path: Path
) -> None:
    stranger = make_certificates(tmp_path / "other").authority
    url = f"{guarded.url('postgres', 'ann')}?sslmode=verify-full&sslrootcert={stranger}"
    with pytest.raises(StoreError, match="certificate verify failed"):
        await PostgresStore.open(Address.parse(url, secret), member())


async def test_a_server_that_insists_on_tls_refuses_clear_text(
    guarded: Postgres, secret: str
) -> None:
    url = f"{guarded.url('postgres', 'ann')}?sslmode=disable"
    with pytest.raises(StoreError, match="see user, password and sslmode"):
        await PostgresStore.open(Address.parse(url, secret), member())


async def test_a_wrong_password_is_said_and_not_shown(
    guarded: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WINDLASS_TEST_PASSWORD", f"not-{CANARY}")
    url = guarded.url("postgres", "ann:env%3AWINDLASS_TEST_PASSWORD")
    address = Address.parse(f"{url}?sslmode=require")
    with pytest.raises(StoreError, match="lets nobody in like that") as refused:
        await PostgresStore.open(address, member())
    assert CANARY not in f"{refused.value}{refused.value.__cause__!r}{address!r}"


async def test_a_missing_password_file_is_named(guarded: Postgres, tmp_path: Path) -> None:
    address = Address.parse(guarded.url("postgres", "ann"), f"file:{tmp_path / 'none'}")
    with pytest.raises(StoreError, match=r"none cannot be read .*put the secret there"):
        await PostgresStore.open(address, member())
