"""Profiles of the settings, held against the parser of requests before the server starts."""

from __future__ import annotations

from whisper_api.api.options import Fields, parse_request
from whisper_api.api.schemas import FIELDS
from whisper_api.config import Settings
from whisper_api.errors import InvalidOption, SettingsError
from whisper_api.setting_docs import nearest

FIELD_NAMES = frozenset(name.removesuffix("[]") for name in FIELDS) - {"model", "stream"}
"""What a profile may hold: no model, as the request names it, and nothing that changes how the
answer comes."""


def check_profiles(settings: Settings) -> None:
    """Refuse profiles that no request could use.

    Raises:
        SettingsError: one line for each mistake, with the profile's name and the field's.
    """
    found = [line for name in settings.profiles for line in _mistakes(settings, name)]
    if found:
        raise SettingsError("\n".join(found))


def _mistakes(settings: Settings, name: str) -> list[str]:
    profile = settings.profiles[name]
    if not name or ":" in name:
        return [f"profiles: {name!r} is no name for a profile"]
    strange = {key.removesuffix("[]") for key in profile} - FIELD_NAMES
    if strange:
        return [
            f"profiles.{name}: {key!r} is no field that a profile may have"
            f"{nearest(key, FIELD_NAMES)}"
            for key in sorted(strange)
        ]
    try:
        parse_request(Fields.from_json(profile), settings, "transcribe")
    except InvalidOption as error:
        return [f"profiles.{name}: {error.message}"]
    return []
