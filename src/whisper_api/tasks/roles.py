"""What a process is to the others: API and engine, API only, engine only."""

from __future__ import annotations

from whisper_api.config import Settings
from whisper_api.errors import SettingsError
from whisper_api.models import ModelStore
from whisper_api.pool import Pool
from whisper_api.scheduler import Scheduler
from whisper_api.tasks.node import Means, Role


def check_role(settings: Settings, role: Role) -> None:
    """Refuse a role that this process cannot fill.

    Raises:
        SettingsError: it needs a database and a store that other machines see as well.
    """
    if role == "all":
        return
    name = "serve --no-engine" if role == "api" else "worker"
    if not settings.database_url.get_secret_value().startswith("postgres"):
        raise SettingsError(
            f"database_url: `whisper-api {name}` works together with other processes and needs "
            "PostgreSQL: postgresql://USER:PASSWORD@HOST/NAME"
        )
    if not settings.storage_url.get_secret_value():
        raise SettingsError(
            f"storage_url: `whisper-api {name}` needs a store that all processes share: "
            "s3://BUCKET/PREFIX, or a folder that all machines mount"
        )
    if role == "worker" and not settings.local_engine:
        raise SettingsError("local_engine: a worker without an engine has nothing to do")


def means_of(
    settings: Settings, role: Role, store: ModelStore, pool: Pool, scheduler: Scheduler
) -> Means:
    """What this process tells others that it can do."""

    def loaded() -> list[str]:
        return [engine.info.model for engine in pool.loaded()]

    def first() -> list[str]:
        return list(dict.fromkeys((store.default_name, *settings.preload_models)))

    def stored() -> list[str]:
        mine = store.list() if settings.local_engine else []
        return [entry.id for entry in mine if entry.alias_of is None]

    return Means(role, first, loaded, stored, lambda: 1 / scheduler.real_time_factor)
