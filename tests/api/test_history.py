"""The history over HTTP: kept answers, search, edits, exports, audio, deletion, owners."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from collections.abc import AsyncIterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from tests.api.conftest import OpenApp, running
from tests.conftest import Encode, MakeWav
from tests.waiting import PATIENCE_S

from whisper_api.records import NewRecord
from whisper_api.runtime import Runtime
from whisper_api.types import Caller, Coverage, Segment, Transcript, Word

TRANSCRIPTIONS = "/v1/audio/transcriptions"
HISTORY = "/v1/history"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def kept(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application that keeps history, for tests that clean up after themselves."""
    folder = tmp_path_factory.mktemp("history")
    async with running(folder, enable_history=True, allowed_directories=(folder,)) as client:
        yield client


pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def emptied(kept: httpx.AsyncClient) -> AsyncIterator[None]:
    """Each test begins and ends without records."""
    yield
    for item in (await kept.get(HISTORY, params={"limit": 100})).json()["data"]:
        await kept.delete(f"{HISTORY}/{item['id']}")
    assert (await kept.get(HISTORY)).json()["data"] == []


def runtime_of(client: httpx.AsyncClient) -> Runtime:
    found: Runtime = client.app.state.runtime  # type: ignore[attr-defined]
    return found


async def send(
    client: httpx.AsyncClient, content: bytes, name: str = "Совещание.wav", **fields: Any
) -> httpx.Response:
    headers = fields.pop("headers", None)
    if granularities := fields.pop("granularities", None):
        fields["timestamp_granularities[]"] = granularities
    answer = await client.post(
        TRANSCRIPTIONS, files={"file": (name, content)}, data=fields, headers=headers
    )
    assert answer.status_code == 200, answer.text
    return answer


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    return error


def made(text: str = " Hello world.", **changes: Any) -> Transcript:
    """A transcript of two segments with words."""
    parts = text.split("|")
    segments = []
    for n, part in enumerate(parts):
        tokens = part.split()
        step = 1 / max(1, len(tokens))
        words = tuple(
            Word(f" {t}", n + i * step, n + (i + 1) * step, 0.9) for i, t in enumerate(tokens)
        )
        segments.append(
            Segment(n, 0, float(n), n + 1.0, part, (1, 2), 0.0, -0.3, 1.2, 0.1, "en", words)
        )
    values: dict[str, Any] = {
        "task": "transcribe",
        "language": "en",
        "language_probability": 0.9,
        "duration": float(len(parts)),
        "segments": tuple(segments),
        "model": "fake",
        "coverage": Coverage(2.0, 1.5, 1.25, 0.25),
        "warnings": ("a warning",),
    }
    return Transcript(**{**values, **changes})


async def put(client: httpx.AsyncClient, text: str = " Hello world.", **changes: Any) -> str:
    fields = {"owner": "", "name": "a.wav", "source": "sync"}
    transcript = changes.pop("transcript", None) or made(text)
    new = NewRecord(transcript=transcript, **{**fields, **changes})
    return await runtime_of(client).history.add(new)


async def test_an_answer_is_kept_with_its_audio_options_and_times(
    kept: httpx.AsyncClient, make_wav: MakeWav
) -> None:
    answer = await send(
        kept,
        make_wav({0.5: 7, 1.5: 8}, 3),
        response_format="verbose_json",
        temperature="0.2",
        granularities=["word", "segment"],
    )
    found = (await kept.get(f"{HISTORY}/{answer.headers['x-history-id']}")).json()
    assert found["text"] == answer.json()["text"]
    told = answer.json()["segments"]
    assert [{**s, "language": None, "words": None} for s in found["segments"]] == [
        {**s, "language": None, "words": None} for s in told
    ]
    assert [w["word"] for s in found["segments"] for w in s["words"]]
    assert found["options"]["temperature"] == 0.2
    timings = found["timings"]
    work = [timings[f"{stage}_seconds"] for stage in ("decode", "recognise")]
    assert 0 < sum(work) <= timings["processing_seconds"] + 0.01
    assert (found["name"], found["source"], found["model"]) == ("Совещание.wav", "sync", "fake")
    assert (found["has_audio"], found["edited"], found["original"]) == (True, False, None)
    assert found["duration_seconds"] == 3.0


@pytest.mark.parametrize("fields", [{"stream": "true"}, {"response_format": "srt"}])
async def test_streams_and_plain_answers_are_kept_too(
    kept: httpx.AsyncClient, make_wav: MakeWav, fields: dict[str, str]
) -> None:
    answer = await send(kept, make_wav({0.5: 9}, 2), **fields)
    found = await kept.get(f"{HISTORY}/{answer.headers['x-history-id']}")
    assert found.json()["text"]
    assert found.json()["has_audio"]


async def test_base64_and_local_files_are_kept_under_their_names(
    kept: httpx.AsyncClient, make_wav: MakeWav
) -> None:
    import base64

    wav = make_wav({0.5: 9}, 2)
    path = runtime_of(kept).settings.allowed_directories[0] / "local.wav"
    await asyncio.to_thread(path.write_bytes, wav)
    body = {"file": base64.b64encode(wav).decode()}
    first = await kept.post(f"{TRANSCRIPTIONS}/base64", json=body)
    second = await kept.post("/local/transcriptions", json={"file_path": str(path)})
    names = [
        (await kept.get(f"{HISTORY}/{answer.headers['x-history-id']}")).json()["name"]
        for answer in (first, second)
    ]
    assert names[1] == "local.wav"
    assert len((await kept.get(HISTORY)).json()["data"]) == 2


async def test_a_repeated_request_is_a_record_of_its_own_with_the_same_audio(
    kept: httpx.AsyncClient, make_wav: MakeWav
) -> None:
    wav = make_wav({0.5: 11}, 2)
    first, second = [await send(kept, wav) for _ in range(2)]
    ids = [answer.headers["x-history-id"] for answer in (first, second)]
    assert second.headers["x-cache"] == "hit"
    assert ids[0] != ids[1]
    audio = runtime_of(kept).audio
    digests = {(await runtime_of(kept).history.summary(id, Caller())).audio for id in ids}
    (digest,) = digests
    assert digest is not None
    await kept.delete(f"{HISTORY}/{ids[0]}")
    assert audio.store.size(digest) == len(wav)
    await kept.delete(f"{HISTORY}/{ids[1]}")
    assert audio.store.size(digest) is None


async def test_deleting_a_record_drops_the_cached_result(
    kept: httpx.AsyncClient, make_wav: MakeWav
) -> None:
    wav = make_wav({0.5: 12}, 2)
    answer = await send(kept, wav)
    await kept.delete(f"{HISTORY}/{answer.headers['x-history-id']}")
    assert (await send(kept, wav)).headers["x-cache"] == "miss"


async def test_no_store_leaves_nothing_behind(kept: httpx.AsyncClient, make_wav: MakeWav) -> None:
    answer = await send(
        kept, make_wav({0.5: 13}, 2), headers={"cache-control": "max-age=0, No-Store"}
    )
    assert "x-history-id" not in answer.headers
    assert (await kept.get(HISTORY)).json()["data"] == []


async def test_without_the_setting_nothing_is_kept(open_app: OpenApp, make_wav: MakeWav) -> None:
    async with open_app() as client:
        answer = await send(client, make_wav({0.5: 7}, 2))
        assert "x-history-id" not in answer.headers
        assert (await client.get(HISTORY)).json() == {
            "object": "list", "data": [], "has_more": False, "first_id": None, "last_id": None,
        }  # fmt: skip


async def test_audio_is_left_out_where_the_setting_says_so(
    open_app: OpenApp, make_wav: MakeWav
) -> None:
    async with open_app(enable_history=True, history_audio=False) as client:
        answer = await send(client, make_wav({0.5: 7}, 2))
        id = answer.headers["x-history-id"]
        assert not (await client.get(f"{HISTORY}/{id}")).json()["has_audio"]
        for part in ("audio", "peaks"):
            assert problem(await client.get(f"{HISTORY}/{id}/{part}"), 404)["code"] == "no_audio"


async def test_an_answer_that_cannot_be_kept_is_still_given(
    open_app: OpenApp, make_wav: MakeWav, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_app(enable_history=True) as client:
        with monkeypatch.context() as patched:
            runtime = runtime_of(client)
            patched.setattr(runtime.audio.store, "put", _full)
            answer = await send(client, make_wav({0.5: 7}, 2))
        assert answer.json()["text"]
        assert "x-history-id" not in answer.headers
        assert "whisper_history_failures_total 1.0" in (await client.get("/metrics")).text
        assert (await client.get(HISTORY)).json()["data"] == []


def _full(key: str, source: Path) -> None:
    from whisper_api.errors import StorageFull

    raise StorageFull


async def test_pages_go_through_everything_once_in_both_directions(
    kept: httpx.AsyncClient,
) -> None:
    ids = [await put(kept, created_at=100.0 + n // 2) for n in range(7)]
    for order, expected in (("desc", ids[::-1]), ("asc", ids)):
        seen: list[str] = []
        params: dict[str, Any] = {"limit": 3, "order": order}
        for _ in range(3):
            page = (await kept.get(HISTORY, params=params)).json()
            seen += [item["id"] for item in page["data"]]
            params["after"] = page["last_id"]
        assert seen == expected
        assert page["has_more"] is False


async def test_words_are_found_in_any_form_and_case(kept: httpx.AsyncClient) -> None:
    ru = await put(kept, " Ёлка стояла. Обсуждали ВОПРОСЫ бюджета на совещании.", name="a.ogg")
    en = await put(kept, " The quarterly meetings were cancelled.", title="Board café")
    ja = await put(kept, "東京都庁で会議")
    wanted = {
        "совещание": [ru], "вопрос бюджет": [ru], "елка": [ru], "ЁЛКА": [ru], "сове": [ru],
        "MEETING": [en], "cafe": [en], "board quarter": [en], "cancel": [en],
        "東京": [ja], "会": [ja], "meeting совещание": [], "a.ogg": [ru], "'\" OR *": [],
        "!!!": [],
    }  # fmt: skip
    for q, expected in wanted.items():
        answer = await kept.get(HISTORY, params={"q": q})
        assert [item["id"] for item in answer.json()["data"]] == expected, q


async def test_the_preview_shows_where_the_words_are(kept: httpx.AsyncClient) -> None:
    await put(kept, " padding words here" * 60 + " the budget was agreed" + " more padding" * 60)
    (plain,) = (await kept.get(HISTORY)).json()["data"]
    assert plain["preview"].startswith("padding words here")
    assert len(plain["preview"]) <= 200
    (found,) = (await kept.get(HISTORY, params={"q": "budgets"})).json()["data"]
    assert "the budget was agreed" in found["preview"]
    assert found["preview"].startswith("… ")


async def test_filters_hold_together(kept: httpx.AsyncClient) -> None:
    first = await put(kept, created_at=1_700_000_000.0)
    second = await put(
        kept, transcript=made(language="ru", model="other"), source="import", created_at=1.7e9 + 1
    )
    for params, expected in (
        ({"language": "ru"}, [second]), ({"language": "russian"}, [second]),
        ({"model": "fake"}, [first]), ({"source": "import"}, [second]),
        ({"from": "1700000001"}, [second]), ({"to": "1700000001"}, [first]),
        ({"from": "2023-11-14", "to": "2023-11-14"}, [second, first]),
        ({"from": "2023-11-14T22:13:21Z"}, [second]), ({"to": "2023-11-13"}, []),
        ({"language": "ru", "model": "fake"}, []),
    ):  # fmt: skip
        answer = await kept.get(HISTORY, params=params)
        assert [item["id"] for item in answer.json()["data"]] == expected, params


@pytest.mark.parametrize(
    ("params", "param"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "101"}, "limit"),
        ({"after": "tr_none"}, "after"),
        ({"order": "up"}, "order"),
        ({"from": "yesterday"}, "from"),
        ({"to": "2026-13-45"}, "to"),
        ({"from": "nan"}, "from"),
        ({"from": "-inf"}, "from"),
        ({"to": "1e999"}, "to"),
        ({"language": "klingon"}, "language"),
        ({"source": "other"}, "source"),
        ({"q": "x" * 1001}, "q"),
    ],
)
async def test_bad_filters_are_named(
    kept: httpx.AsyncClient, params: dict[str, str], param: str
) -> None:
    assert problem(await kept.get(HISTORY, params=params), 400)["param"] == param


async def test_a_title_can_be_given_and_taken_away(kept: httpx.AsyncClient) -> None:
    id = await put(kept)
    named = (await kept.patch(f"{HISTORY}/{id}", json={"title": "  Board\n meeting "})).json()
    assert (named["title"], named["edited"], named["original"]) == ("Board meeting", False, None)
    assert (await kept.get(HISTORY, params={"q": "board"})).json()["data"][0]["id"] == id
    assert (await kept.patch(f"{HISTORY}/{id}", json={"title": ""})).json()["title"] == ""
    assert (await kept.get(HISTORY, params={"q": "board"})).json()["data"] == []


async def test_an_edit_keeps_the_original_and_can_be_undone(kept: httpx.AsyncClient) -> None:
    id = await put(kept, " Hello wurld.| Good bye.")
    before = (await kept.get(f"{HISTORY}/{id}")).json()
    segments = deepcopy(before["segments"])
    segments[0]["text"] = "Hello dear world."
    del segments[0]["words"]
    edited = (await kept.patch(f"{HISTORY}/{id}", json={"segments": segments})).json()
    assert edited["text"] == "Hello dear world. Good bye."
    assert edited["edited"]
    assert edited["original"]["text"] == before["text"]
    words = edited["segments"][0]["words"]
    assert [w["word"] for w in words] == ["Hello", "dear", "world."]
    assert words[0] == before["segments"][0]["words"][0]
    assert words[1]["start"] == 0.5
    assert words[2]["end"] == 1.0
    assert edited["segments"][1]["words"] == before["segments"][1]["words"]
    again = await kept.patch(f"{HISTORY}/{id}", json={"text": "Hello. Good bye, all."})
    assert [s["text"] for s in again.json()["segments"]] == [" Hello.", " Good bye, all."]
    assert again.json()["original"]["text"] == before["text"]
    assert (await kept.get(HISTORY, params={"q": "wurld"})).json()["data"] == []
    reverted = (await kept.post(f"{HISTORY}/{id}/revert")).json()
    assert (reverted["edited"], reverted["original"]) == (False, None)
    assert reverted["segments"] == before["segments"]
    assert (await kept.get(HISTORY, params={"q": "wurld"})).json()["data"][0]["id"] == id


async def test_an_edit_back_to_the_original_is_none(kept: httpx.AsyncClient) -> None:
    id = await put(kept)
    text = (await kept.get(f"{HISTORY}/{id}")).json()["text"]
    assert (await kept.patch(f"{HISTORY}/{id}", json={"text": "Else."})).json()["edited"]
    assert not (await kept.patch(f"{HISTORY}/{id}", json={"text": text})).json()["edited"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, None),
        ({"nonsense": 1}, "nonsense"),
        ({"title": "x" * 201}, "title"),
        ({"text": "a", "segments": []}, "text"),
        ({"segments": [{"start": 1, "end": 0, "text": "a"}]}, "segments"),
        ({"segments": [{"start": 0, "end": 99, "text": "a"}]}, "segments"),
        ({"segments": [{"start": -1, "end": 0, "text": "a"}]}, "segments.0.start"),
        ({"segments": [{"start": 0, "end": 1}]}, "segments.0.text"),
        ({"text": "x" * 2_000_001}, "text"),
    ],
)
async def test_bad_edits_are_named_and_change_nothing(
    kept: httpx.AsyncClient, body: dict[str, Any], param: str | None
) -> None:
    id = await put(kept)
    before = (await kept.get(f"{HISTORY}/{id}")).json()
    assert problem(await kept.patch(f"{HISTORY}/{id}", json=body), 400)["param"] == param
    assert (await kept.get(f"{HISTORY}/{id}")).json() == before


async def test_a_body_that_is_no_json_is_told(kept: httpx.AsyncClient) -> None:
    id = await put(kept)
    answer = await kept.patch(f"{HISTORY}/{id}", content=b"{")
    assert problem(answer, 400)["code"] == "invalid_json"


@pytest.mark.parametrize(
    ("shape", "ending", "begins"),
    [
        ("text", "txt", "Hello world."),
        ("srt", "srt", "1\n00:00:00,000 --> 00:00:01,000\nHello world."),
        ("vtt", "vtt", "WEBVTT"),
        ("json", "json", "{"),
        ("verbose_json", "json", "{"),
    ],
)
async def test_every_format_can_be_exported(
    kept: httpx.AsyncClient, shape: str, ending: str, begins: str
) -> None:
    id = await put(kept, name="Отчёт.final.mp3")
    answer = await kept.get(f"{HISTORY}/{id}/export", params={"response_format": shape})
    assert answer.text.startswith(begins)
    disposition = answer.headers["content-disposition"]
    assert disposition.startswith("attachment; ")
    name = httpx.URL(f"http://x/?{disposition.split(chr(39) * 2)[1]}").query.decode()
    assert name == "%D0%9E%D1%82%D1%87%D1%91%D1%82.final." + ending
    if shape == "verbose_json":
        assert [w["word"] for w in answer.json()["words"]] == ["Hello", "world"]


async def test_many_are_exported_as_a_zip_with_a_name_for_each(kept: httpx.AsyncClient) -> None:
    ids = [
        await put(kept, " One."),
        await put(kept, " Two."),
        await put(kept, " Три.", title='../../evil: "name"'),
        await put(kept, " Four.", title="Board meeting " + "x" * 186),
    ]
    answer = await kept.get(
        f"{HISTORY}/export", params={"ids": ",".join(ids), "response_format": "srt"}
    )
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    assert archive.testzip() is None
    assert archive.namelist() == [
        "a.srt",
        "a (2).srt",
        "_.._evil_ _name_.srt",
        f"Board meeting {'x' * 86}.srt",
    ]
    assert "Три." in archive.read("_.._evil_ _name_.srt").decode()
    found = await kept.get(f"{HISTORY}/export", params={"q": "two"})
    assert zipfile.ZipFile(io.BytesIO(found.content)).read("a.txt") == b"Two.\n"


async def test_an_export_of_what_is_not_there_is_told_before_it_begins(
    kept: httpx.AsyncClient,
) -> None:
    id = await put(kept)
    answer = await kept.get(f"{HISTORY}/export", params={"ids": f"{id},tr_none"})
    assert problem(answer, 404)["param"] == "ids"
    for url in (f"{HISTORY}/export", f"{HISTORY}/{id}/export"):
        answer = await kept.get(url, params={"response_format": "docx"})
        assert problem(answer, 400)["param"] == "response_format"


@pytest.mark.parametrize("ending", ["wav", "mp3", "flac", "webm", "m4a"])
async def test_what_browsers_play_is_given_as_it_came(
    kept: httpx.AsyncClient, make_wav: MakeWav, encode: Encode, ending: str
) -> None:
    wav = make_wav({0.5: 7}, 2)
    content = wav if ending == "wav" else encode(wav, ending)
    # The caller's name and type say nothing about what is answered.
    answer = await send(kept, content, name=f"x.{ending}")
    url = f"{HISTORY}/{answer.headers['x-history-id']}/audio"
    audio = await kept.get(url)
    assert audio.content == content
    assert f'filename="x.{ending}"' in audio.headers["content-disposition"]
    types = {"mp3": "audio/mpeg", "m4a": "audio/mp4"}
    assert audio.headers["content-type"] == types.get(ending, f"audio/{ending}")
    assert audio.headers["x-content-type-options"] == "nosniff"


async def test_what_browsers_do_not_play_is_given_as_opus(
    kept: httpx.AsyncClient, make_wav: MakeWav
) -> None:
    from tests.media import FORMATS, encode, tone

    container, codec, _, rate = FORMATS["wma"]
    content = await asyncio.to_thread(encode, tone(2), container, codec, rate=rate)
    answer = await send(kept, content, name="x.wma")
    url = f"{HISTORY}/{answer.headers['x-history-id']}/audio"
    first, second, head = await asyncio.gather(kept.get(url), kept.get(url), kept.head(url))
    assert first.headers["content-type"] == "audio/webm"
    assert first.content == second.content
    assert head.headers["content-length"] == str(len(first.content))
    path = runtime_of(kept).settings.data_dir / "opus.webm"
    await asyncio.to_thread(path.write_bytes, first.content)
    probe = await runtime_of(kept).decoder.probe(path)
    assert probe.codec == "opus"
    assert probe.duration == pytest.approx(2.0, abs=0.1)
    assert 'filename="x.webm"' in first.headers["content-disposition"]


async def test_parts_of_the_audio_are_served(kept: httpx.AsyncClient, make_wav: MakeWav) -> None:
    wav = make_wav({0.5: 7}, 2)
    answer = await send(kept, wav)
    url, size = f"{HISTORY}/{answer.headers['x-history-id']}/audio", len(wav)
    whole = await kept.get(url)
    etag = whole.headers["etag"]
    assert (whole.status_code, whole.headers["accept-ranges"]) == (200, "bytes")
    for asked, start, stop in (
        ("bytes=0-99", 0, 100), ("bytes=100-", 100, size), ("bytes=-10", size - 10, size),
        ("bytes=0-999999999", 0, size), (f"bytes=-{size + 5}", 0, size), ("Bytes=5-5", 5, 6),
        (f"bytes=9-{2**64 - 1}", 9, size),
    ):  # fmt: skip
        part = await kept.get(url, headers={"range": asked})
        assert (part.status_code, part.content) == (206, wav[start:stop]), asked
        assert part.headers["content-range"] == f"bytes {start}-{stop - 1}/{size}"
        head = await kept.head(url, headers={"range": asked})
        assert (head.status_code, head.content) == (206, b"")
        assert head.headers["content-length"] == str(stop - start)
    long = "9" * 5000
    for asked in (
        "bytes=0-1,5-6", "bytes=9-5", "bytes=-", "items=0-5", "bytes=a-b",
        f"bytes=0-{long}", f"bytes={long}-", f"bytes=-{long}",
    ):  # fmt: skip
        assert (await kept.get(url, headers={"range": asked})).status_code == 200, asked
    behind = await kept.get(url, headers={"range": f"bytes={size}-"})
    assert problem(behind, 416)["code"] == "range_not_satisfiable"
    assert behind.headers["content-range"] == f"bytes */{size}"
    changed = await kept.get(url, headers={"range": "bytes=0-9", "if-range": '"other"'})
    assert changed.status_code == 200
    same = await kept.get(url, headers={"range": "bytes=0-9", "if-range": etag})
    assert same.status_code == 206
    known = await kept.get(url, headers={"if-none-match": f'"other", W/{etag}'})
    assert (known.status_code, known.content) == (304, b"")


async def test_names_cannot_break_out_of_the_header(
    kept: httpx.AsyncClient, make_wav: MakeWav
) -> None:
    answer = await send(kept, make_wav({0.5: 7}, 2))
    id = answer.headers["x-history-id"]
    await kept.patch(f"{HISTORY}/{id}", json={"title": 'a"; filename="b.exe\r\nx: y'})
    audio = await kept.get(f"{HISTORY}/{id}/audio")
    disposition = audio.headers["content-disposition"]
    assert disposition.count('"') == 2
    assert disposition.startswith('inline; filename="a_')
    assert "x" not in audio.headers


async def test_peaks_come_from_the_decoding_and_are_made_where_they_are_missing(
    kept: httpx.AsyncClient, make_wav: MakeWav, monkeypatch: pytest.MonkeyPatch
) -> None:
    wav = make_wav({0.5: 7}, 2)
    answer = await send(kept, wav)
    url = f"{HISTORY}/{answer.headers['x-history-id']}/peaks"
    runtime = runtime_of(kept)
    with monkeypatch.context() as patched:
        patched.setattr(runtime.decoder, "decode", None)
        first = (await kept.get(url)).json()
    assert first["duration"] == 2.0
    assert first["points_per_second"] == 50
    assert len(first["peaks"]) == 100
    assert max(first["peaks"][:24]) == 0 < max(first["peaks"][24:40])
    summary = await runtime.history.summary(answer.headers["x-history-id"], Caller())
    assert summary.audio is not None
    from whisper_api.tables import audio

    clear = audio.update().values(envelope=None)
    await runtime.database.run(lambda connection: connection.execute(clear))
    again = await asyncio.gather(kept.get(url), kept.get(url))
    assert [a.json()["peaks"] for a in again] == [first["peaks"]] * 2
    assert await runtime.audio.envelope(summary.audio) is not None


async def test_audio_that_went_astray_is_a_404(kept: httpx.AsyncClient, make_wav: MakeWav) -> None:
    answer = await send(kept, make_wav({0.5: 7}, 2))
    id = answer.headers["x-history-id"]
    summary = await runtime_of(kept).history.summary(id, Caller())
    assert summary.audio is not None
    await asyncio.to_thread(runtime_of(kept).audio.store.remove, summary.audio)
    assert problem(await kept.get(f"{HISTORY}/{id}/audio"), 404)["code"] == "not_found"
    assert (await kept.get(f"{HISTORY}/{id}")).status_code == 200


async def test_what_is_not_there_is_a_404_everywhere(kept: httpx.AsyncClient) -> None:
    url = f"{HISTORY}/tr_none"
    for answer in (
        await kept.get(url), await kept.delete(url), await kept.patch(url, json={"title": "a"}),
        await kept.post(f"{url}/revert"), await kept.get(f"{url}/audio"),
        await kept.get(f"{url}/peaks"), await kept.get(f"{url}/export"),
    ):  # fmt: skip
        assert problem(answer, 404)["code"] == "not_found"


async def test_another_keys_records_do_not_exist_for_a_key(
    kept: httpx.AsyncClient, make_wav: MakeWav, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = (await send(kept, make_wav({0.5: 7}, 2))).headers["x-history-id"]
    url = f"{HISTORY}/{id}"
    stranger, admin = Caller("other", "Other", admin=False), Caller("boss", "Boss", admin=True)
    with monkeypatch.context() as patched:
        patched.setattr("whisper_api.api.history.caller_of", lambda _: stranger)
        for answer in (
            await kept.get(url), await kept.delete(url), await kept.patch(url, json={"title": "x"}),
            await kept.post(f"{url}/revert"), await kept.get(f"{url}/audio"),
            await kept.get(f"{url}/peaks"), await kept.get(f"{url}/export"),
            await kept.get(f"{HISTORY}/export", params={"ids": id}),
        ):  # fmt: skip
            assert problem(answer, 404)["code"] == "not_found"
        for params in ({}, {"q": "heard"}, {"source": "sync"}):
            assert (await kept.get(HISTORY, params=params)).json()["data"] == []
        assert problem(await kept.get(HISTORY, params={"after": id}), 400)["param"] == "after"
        archive = await kept.get(f"{HISTORY}/export")
        assert zipfile.ZipFile(io.BytesIO(archive.content)).namelist() == []
    with monkeypatch.context() as patched:
        patched.setattr("whisper_api.api.history.caller_of", lambda _: admin)
        assert [item["id"] for item in (await kept.get(HISTORY)).json()["data"]] == [id]
        assert (await kept.get(f"{url}/audio")).status_code == 200


async def test_records_belong_to_the_key_that_asked(open_app: OpenApp, make_wav: MakeWav) -> None:
    async with open_app(enable_history=True, api_keys=("first-key", "second-key")) as client:
        owners = set()
        for key in ("first-key", "second-key"):
            headers = {"authorization": f"Bearer {key}"}
            answer = await send(client, make_wav({0.5: 7}, 2), headers=headers)
            id = answer.headers["x-history-id"]
            owners.add((await runtime_of(client).history.summary(id, Caller())).owner)
        assert len(owners) == 2
        assert "" not in owners


async def test_old_records_are_forgotten_with_their_audio(
    kept: httpx.AsyncClient, make_wav: MakeWav, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = await send(kept, make_wav({0.5: 21}, 2))
    old = answer.headers["x-history-id"]
    fresh = await put(kept)
    runtime = runtime_of(kept)
    summary = await runtime.history.summary(old, Caller())
    assert summary.audio is not None
    from whisper_api.tables import transcripts

    older = transcripts.update().where(transcripts.c.id == old).values(created_at=1.0)
    await runtime.database.run(lambda connection: connection.execute(older))
    assert await runtime.history.prune(0) == 0
    assert await runtime.history.prune() == 1
    assert [item["id"] for item in (await kept.get(HISTORY)).json()["data"]] == [fresh]
    assert runtime.audio.store.size(summary.audio) is None


async def test_the_clean_up_goes_on_after_a_failure(
    open_app: OpenApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whisper_api.runtime.HOUSEKEEPING_S", 0.01)
    async with open_app(max_history_days=1) as client:
        runtime = runtime_of(client)
        calls = 0
        seen = asyncio.Event()
        prune = runtime.history.prune

        async def failing(days: float | None = None) -> int:
            nonlocal calls
            calls += 1
            if calls == 1:
                raise ZeroDivisionError
            seen.set()
            return await prune(days)

        monkeypatch.setattr(runtime.history, "prune", failing)
        await asyncio.wait_for(seen.wait(), PATIENCE_S)


async def test_records_survive_a_restart(tmp_path: Path, make_wav: MakeWav) -> None:
    async with running(tmp_path, enable_history=True) as client:
        wav = make_wav({0.5: 7}, 2)
        id = (await send(client, wav)).headers["x-history-id"]
    async with running(tmp_path, enable_history=True) as client:
        assert (await client.get(f"{HISTORY}/{id}/audio")).content == wav
        assert (await client.get(HISTORY)).json()["data"][0]["id"] == id


async def test_a_long_record_is_shown_whole(kept: httpx.AsyncClient) -> None:
    text = "|".join(f" Segment number {n} of a long day." for n in range(600))
    id = await put(kept, text)
    found = (await kept.get(f"{HISTORY}/{id}")).json()
    assert len(found["segments"]) == 600
    assert len(json.dumps(found)) > 400_000
    answer = await kept.patch(f"{HISTORY}/{id}", json={"segments": found["segments"]})
    assert answer.status_code == 200
    assert not answer.json()["edited"]
