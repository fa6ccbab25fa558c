"""The database: migrations, transactions, and what goes wrong with it."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from pydantic import SecretStr

from whisper_api.config import Settings, load_settings
from whisper_api.database import Database, named_errors
from whisper_api.errors import DatabaseUnavailable, SettingsError, StorageFull
from whisper_api.tables import audio, metadata
from whisper_api.tasks.durable import _engine as steps_engine
from whisper_api.tasks.session_lock import SessionLock


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty database of each kind, migrated."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else ""
    opened = Database(Settings(data_dir=tmp_path, database_url=SecretStr(url)))
    opened.migrate()
    yield opened
    opened.close()


def row(digest: str) -> sa.Insert:
    return audio.insert().values(
        digest=digest, size=1, mime="audio/wav", container="wav", codec="pcm", created_at=1.5
    )


def count(connection: sa.Connection) -> int:
    return connection.execute(sa.select(sa.func.count()).select_from(audio)).scalar_one()


def test_the_migrations_make_the_tables_that_the_code_names(database: Database) -> None:
    with database.transaction() as connection:
        found = compare_metadata(MigrationContext.configure(connection), metadata)
    # What only one of the two databases has is not in the metadata.
    own = [item for item in found if "fts" not in str(item) and "words" not in str(item)]
    assert own == []


def test_a_second_start_changes_nothing(database: Database) -> None:
    database.work(lambda connection: connection.execute(row("a")))
    database.migrate()
    assert database.work(count, write=False) == 1


async def test_work_is_one_transaction(database: Database) -> None:
    def work(connection: sa.Connection) -> None:
        connection.execute(row("a"))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await database.run(work)
    assert await database.run(count, write=False) == 0
    assert await database.healthy()


async def test_many_writers_wait_for_one_another(database: Database) -> None:
    def work(number: int, connection: sa.Connection) -> int:
        before = count(connection)
        connection.execute(row(str(number)))
        return before

    done = await asyncio.gather(
        *(database.run(lambda c, n=number: work(n, c)) for number in range(40))  # type: ignore[misc]
    )
    assert await database.run(count, write=False) == 40
    if database.is_sqlite:
        assert sorted(done) == list(range(40))


def test_audio_in_use_cannot_be_forgotten(database: Database) -> None:
    def hold(connection: sa.Connection) -> None:
        connection.execute(row("a"))
        insert = "INSERT INTO audio_holds VALUES ('h', 'a', '', 'x.wav', 1, 2)"
        connection.exec_driver_sql(insert)

    database.work(hold)
    with pytest.raises(sa.exc.IntegrityError):
        database.work(lambda connection: connection.execute(audio.delete()))


def test_the_file_is_for_this_user_only(tmp_path: Path) -> None:
    database = Database(Settings(data_dir=tmp_path / "data"))
    database.migrate()
    database.close()
    mode = (tmp_path / "data" / "records.sqlite").stat().st_mode
    assert os.name == "nt" or stat.S_IMODE(mode) == 0o600


def test_a_database_of_a_newer_version_is_left_alone(database: Database) -> None:
    database.work(lambda c: c.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SettingsError, match="newer version"):
        database.migrate()
    assert database.work(count, write=False) == 0


async def test_a_damaged_file_is_told_and_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "records.sqlite"
    path.write_bytes(b"no database at all" * 100)
    database = Database(Settings(data_dir=tmp_path))
    with pytest.raises(DatabaseUnavailable):
        database.migrate()
    assert not await database.healthy()
    database.close()
    assert path.read_bytes().startswith(b"no database")


async def test_a_server_that_is_away_is_told(tmp_path: Path) -> None:
    url = f"postgresql://user:secret@/none?host={tmp_path}"
    database = Database(Settings(data_dir=tmp_path, database_url=SecretStr(url)))
    with pytest.raises(DatabaseUnavailable) as failure:
        database.migrate()
    assert "secret" not in failure.value.message
    assert failure.value.code == "database_unavailable"
    assert not await database.healthy()
    database.close()


def test_a_host_that_is_lost_without_a_word_holds_no_connection_for_long(tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = []

    def connect(_dialect: object, _record: object, _args: object, given: dict[str, Any]) -> None:
        asked.append(given)
        raise DatabaseUnavailable

    url = SecretStr("postgresql://user@host/records")
    database = Database(Settings(data_dir=tmp_path, database_url=url))
    ways: list[Callable[[], object]] = [
        lambda: database.work(lambda connection: None),
        lambda: SessionLock(database).take("me"),
        lambda: steps_engine(database).connect(),
    ]
    sa.event.listen(sa.Engine, "do_connect", connect)
    try:
        for way in ways:
            with pytest.raises(DatabaseUnavailable):
                way()
    finally:
        sa.event.remove(sa.Engine, "do_connect", connect)
    limits = [(given["connect_timeout"], given["tcp_user_timeout"]) for given in asked]
    assert limits == [(5, 10_000)] * 3


def test_a_lock_that_stays_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whisper_api.database.LOCK_SECONDS", 0.05)
    database = Database(Settings(data_dir=tmp_path))
    database.migrate()
    other = sqlite3.connect(tmp_path / "records.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseUnavailable):
        database.work(lambda connection: connection.execute(row("a")))
    assert database.work(count, write=False) == 0
    other.close()
    database.close()


def test_a_full_disk_is_told_and_costs_nothing_stored_before(tmp_path: Path) -> None:
    database = Database(Settings(data_dir=tmp_path))
    database.migrate()
    database.work(lambda connection: connection.execute(row("a")))

    def too_much(connection: sa.Connection) -> None:
        # The file may not grow: what SQLite then says is what it says on a full disk.
        connection.exec_driver_sql("PRAGMA max_page_count = 1")
        connection.execute(row("b" * 1_000_000))

    with pytest.raises(StorageFull) as failure:
        database.work(too_much)
    assert failure.value.code == "storage_full"
    assert database.work(count, write=False) == 1
    database.close()


def test_mistakes_of_our_own_are_not_called_an_outage(database: Database) -> None:
    with pytest.raises(sa.exc.DBAPIError):
        database.work(lambda connection: connection.exec_driver_sql("SELECT nonsense FROM nowhere"))


@pytest.mark.parametrize("url", ["mysql://host/name", "records.sqlite", "oracle://x"])
def test_other_databases_are_refused_without_showing_the_address(url: str) -> None:
    with pytest.raises(SettingsError, match="database_url: the value \\(hidden\\)") as failure:
        load_settings(database_url=url)
    assert url not in str(failure.value)


@pytest.mark.slow
def test_processes_that_start_together_migrate_once(postgres_url: str, tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from whisper_api.config import Settings;"
        "from whisper_api.database import Database;"
        "Database(Settings(data_dir=pathlib.Path(sys.argv[1]), database_url=sys.argv[2])).migrate()"
    )
    for url in (postgres_url, ""):
        command = [sys.executable, "-c", code, str(tmp_path), url]
        started = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(3)]
        assert [(p.communicate()[1], p.returncode) for p in started] == [(b"", 0)] * 3


def test_a_standby_that_has_not_taken_over_is_away() -> None:
    refused = psycopg.errors.ReadOnlySqlTransaction("cannot execute UPDATE")
    with pytest.raises(DatabaseUnavailable), named_errors():
        raise sa.exc.InternalError("UPDATE tasks", {}, refused)
    with pytest.raises(sa.exc.InternalError), named_errors():
        raise sa.exc.InternalError("UPDATE tasks", {}, psycopg.errors.InternalError_())
