"""The history on each kind of database, and databases that older versions left."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
import sqlalchemy as sa
from alembic.config import Config
from alembic.script import ScriptDirectory
from pydantic import SecretStr
from tests.data.make_records import DIGEST, OLD
from tests.records import ROOT, Kept

import whisper_api
from whisper_api.audio.scratch import Scratch
from whisper_api.config import Settings
from whisper_api.edits import Line
from whisper_api.errors import InvalidOption, NotFound, StorageFull
from whisper_api.history_query import Query
from whisper_api.records import Change
from whisper_api.tables import tasks
from whisper_api.types import Caller, Envelope, Options

DATA = Path(__file__).resolve().parents[1] / "data"


@pytest_asyncio.fixture(
    params=["fts5", "no fts5", pytest.param("postgresql", marks=pytest.mark.slow)]
)
async def kept(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Kept]:
    """An empty history on each kind of database."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else ""
    opened = Kept(Settings(data_dir=tmp_path, database_url=SecretStr(url)))
    opened.database.migrate()
    if request.param == "no fts5":
        with opened.database.transaction() as connection:
            for name in ("insert", "delete", "update"):
                connection.exec_driver_sql(f"DROP TRIGGER transcripts_fts_{name}")
            connection.exec_driver_sql("DROP TABLE transcripts_fts")
    yield opened
    opened.database.close()


async def test_words_are_found_on_every_database(kept: Kept) -> None:
    ru = await kept.add("Обсуждали бюджет на СОВЕЩАНИИ, всё про ёлки")
    en = await kept.add("The meetings were cancelled", title="Board")
    ja = await kept.add("東京都庁で会議")
    for q, expected in {
        "совещание": [ru], "елка": [ru], "бюджет обсуждать": [ru], "сов": [ru],
        "meeting": [en], "board cancel": [en], "都庁": [ja], "会": [ja],
        "meeting бюджет": [], "eeting": [], "x' | 'meetings": [], "!": [], "a.wav": [ja, en, ru],
    }.items():  # fmt: skip
        assert await kept.found(q) == expected, q


async def test_edits_and_deletions_reach_the_index(kept: Kept) -> None:
    id = await kept.add("first words", title="name")
    await kept.history.change(id, ROOT, Change(text="second words"))
    assert (await kept.found("first"), await kept.found("second")) == ([], [id])
    await kept.history.change(id, ROOT, Change(title="other"))
    assert (await kept.found("name"), await kept.found("other words")) == ([], [id])
    await kept.history.revert(id, ROOT)
    assert (await kept.found("first"), await kept.found("second")) == ([id], [])
    await kept.history.delete(id, ROOT)
    assert await kept.found("words") == []


async def test_pages_are_stable_while_records_come(kept: Kept) -> None:
    ids = [await kept.add(str(n), created_at=5.0) for n in range(5)]
    first, more = await kept.history.page(Query(limit=2), ROOT)
    assert more
    await kept.add("new", created_at=9.0)
    rest, more = await kept.history.page(Query(limit=10, after=first[-1].id), ROOT)
    assert [s.id for s in (*first, *rest)] == ids[::-1]
    assert not more


async def test_a_record_is_added_once_however_often(kept: Kept) -> None:
    options = Options(language="ru")
    for _ in range(2):
        await kept.add("text", id="tr_x", audio=kept.file(), options=options)
    entry = await kept.history.get("tr_x", ROOT)
    assert entry.options["language"] == "ru"
    assert await kept.counts() == (1, 1, 0, 0)


async def test_audio_lives_as_long_as_a_record_needs_it(kept: Kept) -> None:
    first, second = [await kept.add("text", audio=kept.file()) for _ in range(2)]
    digest = kept.file().digest
    await kept.history.delete(first, ROOT)
    assert kept.audio.store.size(digest) == 4
    await kept.history.delete(second, ROOT)
    assert (await kept.counts(), kept.audio.store.size(digest)) == ((0, 0, 0, 0), None)


async def test_a_tasks_row_goes_with_its_record(kept: Kept) -> None:
    hold = await kept.audio.keep(kept.file(), "")
    row = tasks.insert().values(
        id="t", owner="", status="completed", created_at=1, name="x", source="upload",
        audio=hold.digest, options={},
    )  # fmt: skip
    await kept.database.run(lambda connection: connection.execute(row))
    await kept.audio.release(hold)
    id = await kept.add("text", source="task", task_id="t", audio=hold.digest)
    assert await kept.counts() == (1, 1, 0, 1)
    seen: list[str] = []
    kept.history.on_delete.append(lambda _, gone: seen.append(gone.id))
    kept.history.on_forget.append(lambda gone: seen.append(gone.owner))
    await kept.history.delete(id, ROOT)
    assert (await kept.counts(), seen) == ((0, 0, 0, 0), [id, ""])


async def test_a_task_that_was_tried_again_outlives_its_earlier_record(kept: Kept) -> None:
    row = tasks.insert().values(
        id="t", owner="", status="running", created_at=1, name="x", source="upload", options={}
    )
    await kept.database.run(lambda connection: connection.execute(row))
    await kept.history.delete(await kept.add("text", source="task", task_id="t"), ROOT)
    assert (await kept.counts())[3] == 1


async def test_texts_that_databases_refuse_are_kept_without_the_offence(kept: Kept) -> None:
    id = await kept.add("a\0b \ud83d end", name="n\0.wav", title="t\0")
    entry = await kept.history.get(id, ROOT)
    assert (entry.summary.preview, entry.summary.name) == ("ab ? end", "n.wav")
    assert entry.transcript.text == "a\0b \ud83d end"
    assert await kept.found("end") == [id]
    with pytest.raises((NotFound, InvalidOption)):
        await kept.history.get("tr_\0", ROOT)


async def test_old_records_go_in_batches(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("whisper_api.history._BATCH", 2)
    for n in range(5):
        await kept.add("old", created_at=1.0 + n, audio=kept.file(bytes([n])))
    fresh = await kept.add("fresh")
    assert await kept.history.prune() == 5
    assert await kept.found("") == [fresh]
    assert (await kept.counts())[:2] == (1, 0)


async def test_edits_at_the_same_time_all_count(kept: Kept) -> None:
    id = await kept.add("text")
    await asyncio.gather(
        kept.history.change(id, ROOT, Change(title="title")),
        kept.history.change(id, ROOT, Change(lines=[Line(0, 1, "other")])),
    )
    entry = await kept.history.get(id, ROOT)
    assert (entry.summary.title, entry.transcript.text) == ("title", "other")
    assert entry.original is not None
    assert entry.original.text == "text"


async def test_a_full_disk_keeps_what_was_there(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = await kept.add("text", audio=kept.file(b"earlier"))
    with monkeypatch.context() as patched:

        def full(connection: sa.Connection, *_: object) -> None:
            raise StorageFull

        patched.setattr(kept.history, "_insert", full)
        with pytest.raises(StorageFull):
            await kept.add("more", audio=kept.file(b"later"))
    assert await kept.counts() == (1, 1, 0, 0)
    assert await kept.found("") == [id]


async def test_owners_see_their_own_and_admins_all(kept: Kept) -> None:
    anna, boris = (Caller(key, admin=False) for key in ("anna", "boris"))
    id = await kept.add("text", owner="anna")
    assert (await kept.found("text", anna), await kept.found("text", boris)) == ([id], [])
    assert await kept.found("text", Caller("root", admin=True)) == [id]
    assert await kept.history.known([id, "tr_none"], boris) == []
    assert await kept.history.ids(Query(), boris, 10) == []
    for work in (
        kept.history.get(id, boris), kept.history.summary(id, boris),
        kept.history.delete(id, boris), kept.history.revert(id, boris),
        kept.history.change(id, boris, Change(title="mine")),
    ):  # fmt: skip
        with pytest.raises(NotFound):
            await work


# --- databases of older versions --------------------------------------------------------------


def revisions() -> Iterator[str]:
    config = Config()
    folder = Path(whisper_api.__file__).parent / "migrations"
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    return (script.revision for script in ScriptDirectory.from_config(config).walk_revisions())


def test_every_revision_has_a_database_of_its_time() -> None:
    made = {path.name.split("-")[1].split(".")[0] for path in DATA.glob("records-*.sqlite.gz")}
    assert made == set(revisions())


@pytest.mark.parametrize("revision", sorted(revisions()))
async def test_a_database_of_an_older_version_opens_whole(revision: str, tmp_path: Path) -> None:
    content = gzip.decompress((DATA / f"records-{revision}.sqlite.gz").read_bytes())
    (tmp_path / "records.sqlite").write_bytes(content)
    kept = Kept(Settings(data_dir=tmp_path))
    kept.database.migrate()
    found = await kept.found("совещание")
    assert found == ["tr_old"]
    entry = await kept.history.get("tr_old", ROOT)
    assert entry.transcript == OLD
    assert (entry.summary.title, entry.summary.audio) == ("Старое", DIGEST)
    edited = await kept.history.change("tr_old", ROOT, Change(text="Новое."))
    assert edited.transcript.text == "Новое."
    assert await kept.counts() == (1, 1, 0, 1)
    envelope = Envelope(2.5, 2.0, "00")
    await kept.audio.set_envelope(DIGEST, envelope)
    assert await kept.audio.envelope(DIGEST) == envelope
    with Scratch.create(tmp_path / "scratch") as scratch, pytest.raises(NotFound):
        await kept.audio.file(DIGEST, scratch)
    await kept.history.delete("tr_old", ROOT)
    assert await kept.counts() == (0, 0, 0, 0)
    assert await kept.add("text")
    kept.database.close()
