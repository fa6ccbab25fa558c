"""Signed callbacks at the end of a task (the Standard Webhooks scheme), kept until they arrive.

A delivery is a row that is written in the transaction that ends its task, so none is lost and
none is made twice. Any process may send it; it takes the row for a while first. A receiver may
get the same ``webhook-id`` twice where a process died between the answer and its note of it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import logging
import random
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa

from whisper_api.audio.download import Allowed, post
from whisper_api.config import Settings
from whisper_api.database import Database
from whisper_api.errors import (
    CapacityError,
    Conflict,
    NotFound,
    SettingsError,
    UrlFailed,
    UrlRefused,
)
from whisper_api.locks import write_once
from whisper_api.metrics import Metrics
from whisper_api.tables import deliveries

log = logging.getLogger(__name__)

State = Literal["pending", "delivered", "dead"]
LONGEST_WAIT_S = 86_400.0
LOOK_S = 1.0
"""Seconds between looks for deliveries that are due."""
AT_ONCE = 16
GONE = 410
"""A receiver's word that it wants no more of this."""
_PREFIX = "whsec_"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message to one receiver."""

    id: str  #: also the header ``webhook-id``
    task_id: str
    url: str
    event: str  #: e.g. ``task.completed``
    payload: str  #: the body, byte for byte the same in every try
    status: State
    attempts: int
    created_at: float
    next_at: float | None  #: Unix seconds of the next try
    finished_at: float | None
    response_status: int | None  #: of the last try
    error: str | None  #: of the last try


class Signer:
    """Signs messages; each secret adds a signature, so that secrets can be changed in peace."""

    def __init__(self, keys: Sequence[str]) -> None:
        """``keys``: ``whsec_`` and base64.

        Raises:
            SettingsError: a key of another shape.
        """
        self._keys = [_key(text) for text in keys]

    def headers(self, ident: str, moment: int, body: bytes) -> dict[str, str]:
        """The headers for ``body`` sent at Unix second ``moment``."""
        content = f"{ident}.{moment}.".encode() + body
        signatures = (hmac.new(key, content, hashlib.sha256).digest() for key in self._keys)
        return {
            "webhook-id": ident,
            "webhook-timestamp": str(moment),
            "webhook-signature": " ".join(
                f"v1,{base64.b64encode(signature).decode()}" for signature in signatures
            ),
            "content-type": "application/json",
        }


class Webhooks:
    """Keeps deliveries and sends them."""

    def __init__(self, settings: Settings, database: Database, metrics: Metrics) -> None:
        """Nothing is sent before ``run``."""
        self._settings = settings
        self._database = database
        self._metrics = metrics
        self._allowed = Allowed.parse(settings.webhook_allowed_hosts)
        self._signer: Signer | None = None

    def queue(
        self, connection: sa.Connection, task_id: str, url: str, event: str, data: Mapping[str, Any]
    ) -> None:
        """Write a delivery into the caller's transaction."""
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
        content = {"type": event, "timestamp": stamp, "data": data}
        connection.execute(
            deliveries.insert().values(
                id=f"msg_{secrets.token_hex(16)}",
                task_id=task_id,
                url=url,
                event=event,
                payload=json.dumps(content),
                status="pending",
                attempts=0,
                created_at=now,
                next_at=now,
            )
        )

    async def of_task(self, task_id: str) -> list[Delivery]:
        """A task's deliveries, oldest first."""
        query = sa.select(deliveries).where(deliveries.c.task_id == task_id)
        query = query.order_by(deliveries.c.created_at, deliveries.c.id)
        rows = await self._database.run(lambda c: c.execute(query).all(), write=False)
        return [_delivery(row) for row in rows]

    async def replay(self, task_id: str, ident: str) -> Delivery:
        """Send a delivery once more, with all its tries, under its old id.

        Raises:
            NotFound: the task has no such delivery.
            Conflict: it is still being tried.
        """
        mine = (deliveries.c.task_id == task_id) & (deliveries.c.id == ident)

        def work(connection: sa.Connection) -> Delivery:
            row = connection.execute(sa.select(deliveries).where(mine)).first()
            if row is None:
                raise NotFound(f"The task has no delivery {ident[:60]!r}.")
            if row.status == "pending":
                raise Conflict("The delivery is still being tried.", code="delivery_pending")
            fresh = {"status": "pending", "attempts": 0, "next_at": time.time()}
            fresh |= {"finished_at": None, "error": None, "response_status": None}
            connection.execute(deliveries.update().where(mine).values(fresh))
            return _delivery(connection.execute(sa.select(deliveries).where(mine)).one())

        return await self._database.run(work)

    async def run(self) -> None:
        """Send what is due, for ever; cancel it to stop."""
        sending: set[asyncio.Task[None]] = set()
        try:
            while True:
                try:
                    for delivery in await self._due(AT_ONCE - len(sending)):
                        task = asyncio.create_task(self._send(delivery))
                        sending.add(task)
                        task.add_done_callback(sending.discard)
                except CapacityError as error:
                    log.debug("webhooks wait: %s", error.message)
                except Exception:
                    # Nobody would start this again; the next look may find the cause gone.
                    log.exception("webhooks could not be looked up")
                await asyncio.sleep(LOOK_S)
        finally:
            for task in sending:
                task.cancel()
            await asyncio.gather(*sending, return_exceptions=True)

    async def _due(self, most: int) -> list[Delivery]:
        """Take deliveries whose time has come; for a while nobody else gets them."""
        if most <= 0:
            return []
        now = time.time()
        query = (
            sa.select(deliveries)
            .where(deliveries.c.status == "pending", deliveries.c.next_at <= now)
            .order_by(deliveries.c.next_at)
            .limit(most)
        )
        if not await self._database.run(lambda c: c.execute(query).first(), write=False):
            return []
        lease = now + self._settings.webhook_timeout_s + 5

        def work(connection: sa.Connection) -> list[Delivery]:
            rows = connection.execute(query.with_for_update(skip_locked=True)).all()
            chosen = deliveries.c.id.in_([row.id for row in rows])
            connection.execute(
                deliveries.update()
                .where(chosen)
                .values(next_at=lease, attempts=deliveries.c.attempts + 1)
            )
            return [_delivery(row) for row in rows]

        return await self._database.run(work)

    async def _send(self, delivery: Delivery) -> None:
        attempt, status, error = delivery.attempts + 1, None, None
        try:
            signer = await self._signing()
            body = delivery.payload.encode()
            status = await post(
                delivery.url,
                body,
                signer.headers(delivery.id, int(time.time()), body),
                allowed=self._allowed,
                seconds=self._settings.webhook_timeout_s,
            )
            error = None if 200 <= status < 300 else f"The receiver answered {status}."
        except (UrlRefused, UrlFailed) as trouble:
            error = trouble.message
        except Exception as trouble:
            log.exception("webhook %s: unexpected error", delivery.id)
            error = f"The server had an error ({type(trouble).__name__})."
        await self._note(delivery, attempt, status, error)

    async def _note(
        self, delivery: Delivery, attempt: int, status: int | None, error: str | None
    ) -> None:
        values: dict[str, Any] = {"response_status": status, "error": error}
        state: State = "pending"
        if error is None:
            state = "delivered"
        elif attempt >= self._settings.webhook_max_attempts or status == GONE:
            state = "dead"
            log.warning("webhook %s of %s is given up: %s", delivery.id, delivery.task_id, error)
        else:
            values["next_at"] = time.time() + backoff(attempt, self._settings.webhook_retry_s)
        if state != "pending":
            values |= {"finished_at": time.time(), "next_at": None}
        self._metrics.webhooks.labels(outcome="retried" if state == "pending" else state).inc()
        mine = deliveries.update().where(deliveries.c.id == delivery.id)
        try:
            await self._database.run(lambda c: c.execute(mine.values(status=state, **values)))
        except CapacityError as trouble:
            # Its lease ends, then it is sent once more.
            log.warning("webhook %s could not be noted: %s", delivery.id, trouble.message)

    async def _signing(self) -> Signer:
        if self._signer is None:
            self._signer = await asyncio.to_thread(open_signer, self._settings)
        return self._signer


def open_signer(settings: Settings) -> Signer:
    """The signer for the settings' secrets, or for one that is made here and kept.

    Raises:
        SettingsError: a secret of another shape.
    """
    given = [secret.get_secret_value() for secret in settings.webhook_secrets]
    return Signer(given or [_own_secret(settings.data_dir / "webhook_secret")])


def backoff(attempt: int, first: float) -> float:
    """Seconds to wait after try number ``attempt`` failed: doubling, a tenth at random."""
    return min(LONGEST_WAIT_S, first * 2.0 ** min(attempt - 1, 40)) * random.uniform(0.9, 1.1)


def _own_secret(path: Path) -> str:
    fresh = _PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()
    return write_once(path, fresh)


def _key(text: str) -> bytes:
    try:
        key = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not text.startswith(_PREFIX) or len(key) < 16:
        raise SettingsError(
            "webhook_secrets: a secret is 'whsec_' and the base64 of at least 16 bytes"
        )
    return key


def _delivery(row: sa.Row[Any]) -> Delivery:
    return Delivery(**{name: row._mapping[name] for name in Delivery.__slots__})
