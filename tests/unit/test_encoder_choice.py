"""Which encoder and decoder are chosen: the fastest that are right, remembered, with reasons."""

from __future__ import annotations

import itertools
import json
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from whisper_api.config import Settings
from whisper_api.engines import choice
from whisper_api.engines.auto import AutoEngine
from whisper_api.engines.base import DecodeParams
from whisper_api.engines.choice import (
    FILE,
    OWN,
    Findings,
    Memory,
    choose_encoder,
    choose_writer,
    measured,
)
from whisper_api.engines.encodings import Encoding
from whisper_api.engines.placement import Placement
from whisper_api.engines.search import Found
from whisper_api.engines.writer import Written
from whisper_api.errors import SettingsError
from whisper_api.model_folder import describe
from whisper_api.pool import engine_loader
from whisper_api.types import Audio

BUNDLED = Path(str(files("whisper_api"))) / "assets" / "bundled"
PLACE = Placement("cpu", 0, "int8", 1, 1, "because")


class Clock:
    """What the measuring sees: it goes on by what the test doubles say to take."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


CLOCK = Clock()


class Slow:
    """An encoder that takes its time and may be wrong."""

    def __init__(self, name: str, seconds: float, value: float = 1.0) -> None:
        self.name = name
        self.streams = 1
        self.calls = 0
        self._seconds = seconds
        self._value = value

    def encode(self, audios: Sequence[Audio]) -> list[Encoding]:
        self.calls += 1
        CLOCK.now += self._seconds
        return [np.full((1, 4, 2), self._value, np.float32) for _ in audios]


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Memory:
    monkeypatch.setattr("whisper_api.engines.choice.perf_counter", CLOCK)
    return Memory(tmp_path / "data" / FILE, "this machine")


def test_the_fastest_wins_and_is_remembered(memory: Memory) -> None:
    own, fast, faster = Slow(OWN, 0.05), Slow("fast", 0.02), Slow("faster", 0.002)
    makers = {"fast": lambda: fast, "faster": lambda: faster}
    name, encoder, reason = choose_encoder(own, makers, 1, memory)
    assert (name, encoder) == ("faster", faster)
    assert reason.startswith("encoder faster, measured on 1 s of audio: faster ")
    assert f"{OWN} 0.05" in reason
    before = [e.calls for e in (own, fast, faster)]
    assert choose_encoder(own, makers, 1, memory) == (name, encoder, reason)
    assert [e.calls for e in (own, fast, faster)] == before
    other = Memory(memory.path, "another machine")
    assert other.recall() is None
    choose_encoder(own, makers, 1, other)
    assert set(json.loads(memory.path.read_text())) == {"this machine", "another machine"}
    assert [path.name for path in memory.path.parent.iterdir()] == [FILE]


def test_rivals_are_in_memory_one_at_a_time(memory: Memory) -> None:
    alive: list[weakref.ref[Slow]] = []

    def maker(name: str, seconds: float) -> Callable[[], Slow]:
        def make() -> Slow:
            assert not any(other() for other in alive)
            encoder = Slow(name, seconds)
            alive.append(weakref.ref(encoder))
            return encoder

        return make

    makers = {"best": maker("best", 0.002), "middle": maker("middle", 0.02)}
    name, encoder, _ = choose_encoder(Slow(OWN, 0.05), makers, 1, memory)
    assert (name, encoder.name) == ("best", "best")
    assert len(alive) == 3  # the winner once more


def test_a_little_faster_is_not_worth_the_memory() -> None:
    assert Findings({OWN: 1.0, "other": 0.95}, 30).best == OWN
    assert Findings({OWN: 1.0, "other": 0.85}, 30).best == "other"
    assert Findings({"other": 3.0}, 30).best == "other"
    assert Findings({OWN: 1.0}, 30).best == OWN


def test_what_is_wrong_or_does_not_run_is_never_chosen(
    memory: Memory, caplog: pytest.LogCaptureFixture
) -> None:
    own = Slow(OWN, 0.02)

    def broken() -> Slow:
        raise RuntimeError("illegal instruction")

    def large() -> Slow:
        raise MemoryError

    makers = {
        "wrong": lambda: Slow("wrong", 0, 2.0),
        "nan": lambda: Slow("nan", 0, float("nan")),
        "broken": broken,
        "large": large,
    }
    assert choose_encoder(own, makers, 1, memory)[:2] == (OWN, own)
    for said in (
        "wrong is wrong",
        "nan is wrong",
        "broken does not run here: illegal",
        "large does not run here: memory is short",
    ):
        assert said in caplog.text
    with pytest.raises(RuntimeError, match="wrong, nan, broken, large"):
        choose_encoder(own, makers, 1, Memory(memory.path, "k"), own_competes=False)


def test_the_only_candidate_is_not_measured(memory: Memory) -> None:
    own, one = Slow(OWN, 0), Slow("one", 0)
    name, encoder, reason = choose_encoder(own, {"one": lambda: one}, 1, memory, False)
    assert (name, encoder, reason) == ("one", one, "encoder one, as set")
    assert (own.calls, one.calls) == (0, 0)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"this machine": 3}', '{"this machine": {"seconds": {"x": "y"}}}']
)
def test_a_spoilt_file_is_measured_again(memory: Memory, text: str) -> None:
    memory.path.parent.mkdir()
    memory.path.write_text(text)
    assert memory.recall() is None
    memory.keep(Findings({OWN: 0.5}, 30))
    assert memory.recall() == Findings({OWN: 0.5}, 30)


def test_a_folder_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file in the way")
    memory = Memory(tmp_path / "data" / FILE, "k")
    memory.keep(Findings({OWN: 1}, 30))
    assert memory.recall() is None


def test_threads_formats_and_libraries_make_another_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files_ = describe(BUNDLED, "bundled")
    keys = {Memory.of(tmp_path, files_, PLACE, ("a",)).key}
    keys.add(Memory.of(tmp_path, files_, PLACE, ("b",)).key)
    keys.add(Memory.of(tmp_path, files_, Placement("cpu", 0, "int8", 1, 2, ""), ("a",)).key)
    monkeypatch.setattr(choice, "_version", lambda library: "99")
    keys.add(Memory.of(tmp_path, files_, PLACE, ("a",)).key)
    assert len(keys) == 4


def test_without_openvino_the_answer_is_ctranslate2_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("whisper_api.engines.auto.find_spec", lambda name: None)
    engine = AutoEngine.load(describe(BUNDLED, "bundled"), Settings(data_dir=tmp_path))
    assert engine.info.engine == OWN
    assert "OpenVINO is not installed (pip install" in engine.info.reason
    engine.close()
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.delitem(sys.modules, "whisper_api.engines.openvino", raising=False)
    monkeypatch.delitem(sys.modules, "whisper_api.engines.openvino_graph", raising=False)
    with pytest.raises(SettingsError, match=r"install whisper-api-server\[openvino\]"):
        engine_loader(Settings(engine="openvino"))


def test_an_openvino_that_does_not_run_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("whisper_api.engines.auto.find_spec", lambda name: True)
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.delitem(sys.modules, "whisper_api.engines.openvino", raising=False)
    monkeypatch.delitem(sys.modules, "whisper_api.engines.openvino_graph", raising=False)
    engine = AutoEngine.load(describe(BUNDLED, "bundled"), Settings(data_dir=tmp_path))
    assert engine.info.engine == OWN
    assert "does not run here" in engine.info.reason
    assert "OpenVINO is installed but does not run here" in caplog.text
    engine.close()


def test_a_remembered_encoder_that_fails_now_is_measured_again(memory: Memory) -> None:
    memory.keep(Findings({OWN: 1.0, "gone": 0.1}, 1))

    for error in (RuntimeError("not any more"), MemoryError()):
        own, gone = Slow(OWN, 0), mock.Mock(side_effect=error)
        assert choose_encoder(own, {"gone": gone}, 1, memory)[:2] == (OWN, own)
        assert own.calls > 0
        memory.keep(Findings({OWN: 1.0, "gone": 0.1}, 1))


def test_auto_says_what_it_measured(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    settings = Settings(data_dir=tmp_path)
    first = AutoEngine.load(describe(BUNDLED, "bundled"), settings)
    assert first.info.engine in (OWN, "openvino")
    assert "measured on 30 s of audio: " in first.info.reason
    told = measured(tmp_path, describe(BUNDLED, "bundled"))
    assert told.startswith("encoder ")
    assert first.info.reason.endswith(told)
    assert measured(tmp_path, describe(BUNDLED, "another")) == ""
    again = AutoEngine.load(describe(BUNDLED, "bundled"), settings)
    assert again.info == first.info
    for engine in (first, again):
        engine.close()


def test_a_format_that_only_ctranslate2_has_leaves_nothing_to_choose(memory: Memory) -> None:
    own = Slow(OWN, 0)
    assert choose_encoder(own, {}, 1, memory)[:2] == (OWN, own)
    assert own.calls == 0


class Writing:
    """A decoder that takes its time and may be wrong."""

    streams = 1
    in_steps = False

    def __init__(self, name: str, *seconds: float, score: float = -2.0) -> None:
        self.name = name
        self.probes = self.windows = 0
        self._seconds, self._score = itertools.cycle(seconds), score

    def most(self, params: DecodeParams) -> int:
        return 8

    def write(
        self, encodings: Sequence[Encoding], prompts: Sequence[list[int]], params: DecodeParams
    ) -> list[Written]:
        return [Written(Found([1], self._score), 0.0) for _ in encodings]

    def probe(self, encodings: Sequence[Encoding], steps: int) -> None:
        self.probes += 1
        self.windows = len(encodings)
        CLOCK.now += next(self._seconds) * len(encodings)

    def shrink(self) -> None:
        self.windows = 0


class Together(Writing):
    """Two streams that need each other's presence to get anywhere."""

    streams = 2

    def __init__(self, name: str, seconds: float) -> None:
        super().__init__(name, seconds)
        self._meeting = threading.Barrier(2, timeout=20)

    def probe(self, encodings: Sequence[Encoding], steps: int) -> None:
        if self._meeting.wait() == 0:
            super().probe(encodings, steps)
        self._meeting.wait()


NOISE = np.zeros((1, 4, 2), np.float32)


def test_the_faster_decoder_wins_and_is_remembered(memory: Memory) -> None:
    own, rival = Writing(OWN, 0.02), Writing("rival", 0.002)
    writer, reason = choose_writer(own, "rival", lambda: rival, NOISE, 7, memory)
    assert writer is rival
    assert reason.startswith("decoder rival, measured on 8 windows: rival ")
    slower = Writing("rival", 1)
    assert choose_writer(own, "rival", lambda: slower, NOISE, 7, memory) == (slower, reason)
    other = Memory(memory.path, "another machine")
    assert choose_writer(rival, "rival", lambda: own, NOISE, 7, other)[0] is rival
    assert choose_writer(rival, "rival", pytest.fail, NOISE, 7, other)[0] is rival


def test_streams_are_tried_at_the_same_time_and_share_the_windows(memory: Memory) -> None:
    own, rival = Together(OWN, 0.02), Writing("rival", 0.015)
    assert choose_writer(own, "rival", lambda: rival, NOISE, 7, memory)[0] is own
    crowded = Together(OWN, 0.04)
    other = Memory(memory.path, "a machine whose memory is slow")
    assert choose_writer(crowded, "rival", lambda: rival, NOISE, 7, other)[0] is rival


def test_decoders_give_up_their_memory_before_the_other_ones_turn(memory: Memory) -> None:
    class Polite(Writing):
        def probe(self, encodings: Sequence[Encoding], steps: int) -> None:
            super().probe(encodings, steps)
            assert sum(writer.windows for writer in (own, rival)) == 8

    own, rival = Polite(OWN, 0.02), Polite("rival", 0.002)
    assert choose_writer(own, "rival", lambda: rival, NOISE, 7, memory)[0] is rival
    assert (own.windows, rival.windows) == (0, 0)


def test_one_bad_moment_does_not_decide_between_decoders(memory: Memory) -> None:
    own, rival = Writing(OWN, 0.02), Writing("rival", 0.01, 0.01, 0.9, *[0.01] * 6)
    assert choose_writer(own, "rival", lambda: rival, NOISE, 7, memory)[0] is rival


def test_slow_decoders_are_tried_once(memory: Memory) -> None:
    for seconds, probes in ((0.01, 9), (5, 3)):
        own, rival = Writing(OWN, seconds), Writing("rival", 0.001)
        fresh = Memory(memory.path, f"a machine that takes {seconds} s")
        assert (
            choose_writer(own, "rival", partial(next, iter([rival])), NOISE, 7, fresh)[0] is rival
        )
        assert own.probes == rival.probes == probes


def test_a_wrong_or_broken_decoder_is_not_used(memory: Memory) -> None:
    def broken() -> Writing:
        raise RuntimeError("no such instruction")

    def large() -> Writing:
        raise MemoryError

    own, wrong = Writing(OWN, 0.02), Writing("rival", 0, score=-9)
    for make, why in ((lambda: wrong, "wrong"), (broken, "does not run"), (large, "does not run")):
        writer, reason = choose_writer(own, "rival", make, NOISE, 7, memory)
        assert writer is own
        assert why in reason
    assert memory.recall() is None
