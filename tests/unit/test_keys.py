"""Keys: hashes, roles, expiry, the keys file while the server runs; the command that makes them."""

from __future__ import annotations

import json
import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from whisper_api.cli import app
from whisper_api.config import KeyEntry, Settings, load_settings
from whisper_api.errors import AuthenticationFailed, SettingsError
from whisper_api.keys import KeyRing, hash_of, new_key, read_keys, write_keys

NOW = datetime(2027, 5, 1, 12, tzinfo=UTC)


def ring(tmp_path: Path, **settings: Any) -> KeyRing:
    return KeyRing(Settings(data_dir=tmp_path, **settings), now=lambda: NOW)


def test_a_key_is_found_by_its_hash(tmp_path: Path) -> None:
    key = new_key()
    keys = ring(tmp_path, keys=[{"name": "ann", "hash": hash_of(key), "role": "admin"}])
    found = keys.find(key)
    assert (found.caller.key, found.caller.name, found.caller.admin) == ("ann", "ann", True)
    assert key.removeprefix("sk-") not in repr(keys.find(key))
    with pytest.raises(AuthenticationFailed, match="wrong"):
        keys.find(key[:-1])


def test_a_key_may_stand_in_the_settings_itself(tmp_path: Path) -> None:
    keys = ring(tmp_path, keys=[{"name": "bob", "secret": "sk-bob"}])
    assert keys.find("sk-bob").caller.admin is False


def test_a_plain_key_is_an_admins_only_where_it_is_the_only_one(tmp_path: Path) -> None:
    assert ring(tmp_path, api_keys=["sk-1"]).find("sk-1").caller.admin
    two = ring(tmp_path, api_keys=["sk-1", "sk-2"])
    assert not two.find("sk-1").caller.admin
    assert two.find("sk-1").caller.key != two.find("sk-2").caller.key
    named = ring(tmp_path, api_keys=["sk-1"], keys=[{"name": "bob", "secret": "sk-bob"}])
    assert not named.find("sk-1").caller.admin


@pytest.mark.parametrize(
    ("expires", "good"),
    [
        ("2027-05-01", True),
        ("2027-04-30", False),
        ("2027-05-01T12:00:01Z", True),
        ("2027-05-01T13:59:59+02:00", False),
        ("2027-05-01T12:00:00", False),
    ],
)
def test_keys_expire(tmp_path: Path, expires: str, good: bool) -> None:
    keys = ring(tmp_path, keys=[{"name": "ann", "secret": "sk-a", "expires": expires}])
    if good:
        assert keys.find("sk-a")
    else:
        with pytest.raises(AuthenticationFailed, match="expired"):
            keys.find("sk-a")


def test_a_keys_own_limits_come_before_the_general_ones(tmp_path: Path) -> None:
    entries = [{"name": "a", "secret": "sk-a", "requests_per_minute": 9}]
    entries.append({"name": "b", "secret": "sk-b"})
    keys = ring(tmp_path, requests_per_minute=3, audio_minutes_per_day=60, keys=entries)
    assert keys.find("sk-a").allowance.requests_per_minute == 9
    assert keys.find("sk-a").allowance.audio_minutes_per_day == 60
    assert keys.find("sk-b").allowance.requests_per_minute == 3


async def test_the_keys_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    clock = [0.0]
    settings = Settings(data_dir=tmp_path, keys_ttl_s=5)
    keys = KeyRing(settings, clock=lambda: clock[0])
    assert not keys.required
    write_keys(settings.keys_path, [KeyEntry(name="ann", hash=hash_of("sk-a"))])
    await keys.refresh()
    assert not keys.required  # the last look is fresh still
    clock[0] = 5
    await keys.refresh()
    assert keys.find("sk-a").caller.name == "ann"

    write_keys(settings.keys_path, [KeyEntry(name="bob", hash=hash_of("sk-b"))])
    clock[0] = 10
    await keys.refresh()
    assert keys.find("sk-b").caller.name == "bob"
    with pytest.raises(AuthenticationFailed):
        keys.find("sk-a")


@pytest.mark.parametrize("content", [None, "junk", '{"keys": []}'])
async def test_a_lost_keys_file_does_not_open_the_server(
    tmp_path: Path, content: str | None
) -> None:
    settings = Settings(data_dir=tmp_path, keys_ttl_s=0)
    write_keys(settings.keys_path, [KeyEntry(name="ann", hash=hash_of("sk-a"))])
    keys = KeyRing(settings)
    if content is None:
        settings.keys_path.unlink()
    else:
        settings.keys_path.write_text(content)
    await keys.refresh()
    assert keys.required
    if content == "junk":  # what was known before still holds
        assert keys.find("sk-a")
    else:
        with pytest.raises(AuthenticationFailed):
            keys.find("sk-a")


async def test_a_keys_file_that_could_not_be_read_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Who may read a file changes neither its time nor its size."""
    settings = Settings(data_dir=tmp_path, keys_ttl_s=0)
    write_keys(settings.keys_path, [KeyEntry(name="ann", hash=hash_of("sk-revoked"))])
    keys = KeyRing(settings)
    write_keys(settings.keys_path, [KeyEntry(name="bob", hash=hash_of("sk-b"))])

    def refuse(*_: object) -> str:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_text", refuse)
        for _ in range(3):
            await keys.refresh()
    assert keys.find("sk-revoked")
    assert [record.levelname for record in caplog.records] == ["ERROR"]  # told once
    await keys.refresh()
    assert keys.find("sk-b")
    with pytest.raises(AuthenticationFailed):
        keys.find("sk-revoked")

    settings.keys_path.write_text("junk")
    await keys.refresh()
    settings.keys_path.write_text("[1]")
    await keys.refresh()
    assert [record.levelname for record in caplog.records] == ["ERROR"] * 2


def test_a_name_stands_for_one_key(tmp_path: Path) -> None:
    twice = [{"name": "a", "secret": "1"}, {"name": "a", "secret": "2"}]
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"keys": twice}))
    with pytest.raises(SettingsError, match="two keys have the name 'a'"):
        load_settings(path)
    write_keys(tmp_path / "keys.json", [KeyEntry(name="a", hash=hash_of("x"))])
    with pytest.raises(SettingsError, match="settings as well"):
        ring(tmp_path, keys=twice[:1])


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ({"name": "a"}, "needs either hash or secret"),
        ({"name": "a", "secret": "x", "hash": hash_of("y")}, "needs either hash or secret"),
        ({"name": "a b", "secret": "x"}, "keys.0.name"),
        ({"name": "a", "hash": "md5:0"}, "keys.0.hash"),
        ({"name": "a", "secret": "top-secret", "role": "boss"}, "keys.0.role"),
        ({"name": "a", "secret": "x", "expires": "soon"}, "keys.0.expires"),
        ({"name": "a", "secret": "x", "requests_per_minute": 0}, "keys.0.requests_per_minute"),
    ],
)
def test_wrong_keys_are_told_without_their_secret(
    tmp_path: Path, entry: dict[str, Any], text: str
) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"keys": [entry]}))
    with pytest.raises(SettingsError) as caught:
        load_settings(path)
    assert text in caught.value.message
    assert "top-secret" not in caught.value.message


def run(tmp_path: Path, *words: str) -> Any:
    config = tmp_path / "config.json"
    if not config.exists():
        config.write_text(json.dumps({"data_dir": "data"}))
    return CliRunner().invoke(app, ["keys", *words, "--config", str(config)])


def test_create_prints_the_key_once_and_keeps_its_hash(tmp_path: Path) -> None:
    made = run(tmp_path, "create", "ann", "--role", "admin", "--expires", "2027-12-31")
    assert made.exit_code == 0
    key = made.stdout.strip()
    path = tmp_path / "data" / "keys.json"
    assert key not in path.read_text()
    assert read_keys(path)[0].hash == hash_of(key)
    if os.name != "nt":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = KeyRing(Settings(data_dir=tmp_path / "data")).find(key)
    assert found.caller.admin
    assert found.expires is not None
    assert found.expires > datetime(2027, 12, 31, 23, 59, tzinfo=UTC)
    again = run(tmp_path, "create", "ann")
    assert isinstance(again.exception, SettingsError)

    listed = run(tmp_path, "list").stdout
    assert "ann" in listed
    assert key not in listed
    assert run(tmp_path, "revoke", "ann").exit_code == 0
    assert read_keys(path) == []
    assert isinstance(run(tmp_path, "revoke", "ann").exception, SettingsError)


def test_create_can_print_what_the_settings_take(tmp_path: Path) -> None:
    made = run(tmp_path, "create", "bob", "--print", "--requests-per-minute", "7")
    snippet = tmp_path / "other.json"
    snippet.write_text(made.stdout)
    settings = load_settings(snippet)
    assert settings.keys[0].requests_per_minute == 7
    key = made.stderr.strip().split()[-1]
    assert KeyRing(settings).find(key).caller.name == "bob"
    assert not (tmp_path / "data" / "keys.json").exists()


def test_list_tells_of_expired_keys(tmp_path: Path) -> None:
    yesterday = datetime.now(UTC) - timedelta(days=1)
    entry = KeyEntry(name="old", hash=hash_of("x"), expires=yesterday, audio_minutes_per_day=5)
    write_keys(tmp_path / "data" / "keys.json", [entry])
    assert "5 audio min/day, expired" in run(tmp_path, "list").stdout
