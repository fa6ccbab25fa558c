"""What of history somebody asks for, as SQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from whisper_api.errors import InvalidOption
from whisper_api.search import Term, fts5_query, terms, tsquery
from whisper_api.tables import transcripts
from whisper_api.types import Caller


@dataclass(frozen=True, slots=True)
class Query:
    """Filters, all of which hold, and a page."""

    q: str = ""  #: words of the text, title or file name
    model: str | None = None
    language: str | None = None  #: ISO code
    source: str | None = None
    since: float | None = None  #: Unix seconds, this one included
    until: float | None = None  #: Unix seconds, this one not included
    limit: int = 20
    after: str | None = None  #: id of the last record of the page before
    order: Literal["asc", "desc"] = "desc"  #: by time


def conditions(connection: sa.Connection, query: Query, caller: Caller) -> list[Any]:
    """What each record has to meet that the query finds for this caller."""
    c = transcripts.c
    found: list[Any] = [] if caller.admin else [c.owner == caller.key]
    for column, value in ((c.model, query.model), (c.language, query.language),
                          (c.source, query.source)):  # fmt: skip
        if value is not None:
            found.append(column == value)
    if query.since is not None:
        found.append(c.created_at >= query.since)
    if query.until is not None:
        found.append(c.created_at < query.until)
    if query.q.strip():
        found.append(_search(connection, terms(query.q)))
    return found


def page_of(
    connection: sa.Connection, query: Query, caller: Caller, columns: Sequence[Any]
) -> sa.Select[Any]:
    """The query's page and one record more.

    Raises:
        InvalidOption: ``after`` is no record of the caller's.
    """
    c = transcripts.c
    statement = sa.select(*columns).where(*conditions(connection, query, caller))
    down = query.order == "desc"
    if query.after is not None:
        mine = [] if caller.admin else [c.owner == caller.key]
        cursor = connection.execute(
            sa.select(c.created_at, c.seq).where(c.id == query.after, *mine)
        ).first()
        if cursor is None:
            raise InvalidOption("after names no transcript.", param="after")
        here, there = sa.tuple_(c.created_at, c.seq), sa.tuple_(*map(sa.literal, cursor))
        statement = statement.where(here < there if down else here > there)
    by = (c.created_at.desc(), c.seq.desc()) if down else (c.created_at, c.seq)
    return statement.order_by(*by).limit(query.limit + 1)


def _search(connection: sa.Connection, wanted: list[Term]) -> Any:
    if not wanted:
        return sa.false()
    if connection.dialect.name == "postgresql":
        return sa.text("words_vector @@ CAST(:q AS tsquery)").bindparams(q=tsquery(wanted))
    if _has_index(connection):
        matches = sa.text("SELECT rowid FROM transcripts_fts WHERE transcripts_fts MATCH :q")
        return transcripts.c.seq.in_(
            matches.bindparams(q=fts5_query(wanted)).columns(sa.column("rowid"))
        )
    padded = sa.literal(" ") + transcripts.c.words + sa.literal(" ")
    return sa.and_(
        *(
            sa.or_(padded.contains(f" {term.word}"), padded.contains(f" {term.stem} "))
            for term in wanted
        )
    )


def _has_index(connection: sa.Connection) -> bool:
    """Whether SQLite was built with full-text search when the database was made."""
    names = "SELECT 1 FROM sqlite_master WHERE name = 'transcripts_fts'"
    return connection.exec_driver_sql(names).first() is not None
