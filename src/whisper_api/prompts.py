"""What stands before a window's text: keywords in every window, the prompt in the first."""

from __future__ import annotations

from dataclasses import dataclass

from whisper_api.engines.base import Engine
from whisper_api.types import Options


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids before the first window and before all others, and what did not fit."""

    first: tuple[int, ...]
    others: tuple[int, ...]
    warnings: tuple[str, ...] = ()


def build_prompt(engine: Engine, options: Options) -> Prompt:
    """Fit keywords and prompt into the model's room for previous text.

    The prompt keeps its end (as Whisper cuts it); keywords are dropped from the last one on,
    and may take all the room that the prompt leaves, at least half of it.
    """
    room = engine.count_limit()
    text = engine.encode_text(" " + options.prompt.strip()) if options.prompt.strip() else ()
    keywords, left_out = _fit(engine, options.keywords, room - min(len(text), room // 2))
    kept = text[-(room - len(keywords)) :] if room > len(keywords) else ()
    warnings = []
    if left_out:
        warnings.append("keywords left out for lack of room: " + ", ".join(left_out))
    if len(kept) < len(text):
        warnings.append(f"the prompt was cut to its last {len(kept)} of {len(text)} tokens")
    return Prompt(keywords + kept, keywords, tuple(warnings))


def _fit(
    engine: Engine, keywords: tuple[str, ...], room: int
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    tokens: tuple[int, ...] = ()
    for count, _ in enumerate(keywords, 1):
        longer = engine.encode_text(" " + ", ".join(k.strip() for k in keywords[:count]) + ".")
        if len(longer) > room:
            return tokens, keywords[count - 1 :]
        tokens = longer
    return tokens, ()
