"""Searches over tokens that never ask the device for a value: greedy, sampling, beam.

Each keeps its state in tensors of fixed size and changes them in place, so that one step can be
captured as a CUDA graph and replayed. A search is told the logits of its rows and says in ``last``
what the decoder reads next. Ended rows write the end token on and keep their scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from whisper_api.engines.torch_rules import Rules
from whisper_api.tokens import CONTEXT

_NEVER = float("-inf")


@dataclass(frozen=True, slots=True)
class Found:
    """The best sequence of one window; the end token is not in it, its score is in ``score``."""

    tokens: list[int]
    score: float  #: sum of log-probabilities
    logprobs: list[float] | None = None  #: of each token, where the search keeps them


class Search(Protocol):
    """The state of ``items * width`` rows; rows of one item stand together."""

    width: int
    last: Any  #: int64 ``[rows]``: what the decoder reads next
    parents: Any  #: int64 ``[rows]``: whose keys and values each row goes on from; None: its own
    finished: Any  #: bool ``[items]``

    def reset(self, used: int) -> None:
        """Start anew with the first ``used`` items; the rest only fill up the batch."""
        ...

    def begin(self, logits: Any) -> None:
        """Take the first tokens; float32 ``[items, vocabulary]``."""
        ...

    def take(self, logits: Any) -> None:
        """Take the next tokens; float32 ``[rows, vocabulary]``, changed in place."""
        ...

    def follow(self, other: Any, items: Any, used: int) -> None:
        """Go on with some items (int64, on the device) of a search of the same kind and width.

        The first ``used`` are real, the rest only fill up the batch. Each row's parent is then its
        own, as if ``other.parents`` had been followed.
        """
        ...

    def results(self, items: Sequence[int], steps: int, cut: bool) -> list[Found]:
        """The best of these items after ``steps`` tokens; waits for the device.

        ``cut``: the last of them was the last that could be written.
        """
        ...


class Rowwise:
    """Greedy search, or sampling with ``width`` samples for each item of which the best is kept.

    Samples are drawn by the Gumbel trick from ``noise``, which whoever runs the search fills
    before each step: all items see the same numbers, so that neighbours do not change a text.
    """

    def __init__(self, items: int, width: int, rules: Rules, size: int, device: Any) -> None:
        """``size`` is the vocabulary's."""
        rows = items * width
        self.width = width
        self.parents = None
        self.last = torch.zeros(rows, dtype=torch.long, device=device)
        self.finished = torch.zeros(items, dtype=torch.bool, device=device)
        self.noise = torch.ones(width, size, device=device) if width > 1 else None
        self.warmth = torch.ones((), device=device)  # the temperature
        self._rules = rules
        self._items = items
        self._before, self._latest = torch.zeros_like(self.last), torch.zeros_like(self.last)
        self._done = torch.zeros(rows, dtype=torch.bool, device=device)
        self._score = torch.zeros(rows, device=device)
        self._step = torch.zeros(1, dtype=torch.long, device=device)
        self._tokens = torch.zeros(rows, CONTEXT, dtype=torch.long, device=device)
        self._logprobs = torch.zeros(rows, CONTEXT, device=device)

    def reset(self, used: int) -> None:
        """See ``Search``."""
        self._done.zero_()
        self._done[used * self.width :] = True
        self.finished.zero_()
        self._score.zero_()
        self._step.zero_()
        self._tokens.fill_(self._rules.eot)

    def begin(self, logits: Any) -> None:
        """See ``Search``."""
        rows = self._rules.first(logits).repeat_interleave(self.width, dim=0)
        self._take(rows, rows)
        self._before.copy_(self.last)

    def take(self, logits: Any) -> None:
        """See ``Search``."""
        before = self.last.clone()
        self._take(self._rules.apply(logits, self.last, self._before, self._latest), logits)
        self._before.copy_(before)

    def _take(self, allowed: Any, logits: Any) -> None:
        token = allowed.argmax(dim=1) if self.noise is None else self._draw(allowed)
        chosen = allowed.gather(1, token[:, None])[:, 0] - allowed.logsumexp(dim=1)
        token = torch.where(self._done, self._rules.eot, token)
        chosen = torch.where(self._done, 0.0, chosen)
        self._score += chosen
        self._tokens.index_copy_(1, self._step, token[:, None])
        self._logprobs.index_copy_(1, self._step, chosen[:, None])
        self._done |= token == self._rules.eot
        self._latest.copy_(torch.where(token >= self._rules.begin, token, self._latest))
        self.last.copy_(token)
        self._step += 1
        self.finished.copy_(self._done.view(self._items, self.width).all(dim=1))

    def _draw(self, allowed: Any) -> Any:
        gumbel = -self.noise.log()  # type: ignore[union-attr]
        rows = (allowed / self.warmth).view(self._items, self.width, -1) + gumbel
        return rows.view(allowed.shape).argmax(dim=1)

    def follow(self, other: Rowwise, items: Any, used: int) -> None:
        """See ``Search``."""
        rows = rows_of(items, self.width)
        for name in ("last", "_before", "_latest", "_done", "_score", "_tokens", "_logprobs"):
            getattr(self, name).copy_(getattr(other, name)[rows])
        self._done[used * self.width :] = True
        self.finished.copy_(self._done.view(self._items, self.width).all(dim=1))
        self._step.copy_(other._step)
        self.warmth.copy_(other.warmth)

    def results(self, items: Sequence[int], steps: int, cut: bool) -> list[Found]:
        """See ``Search``."""
        tokens = self._tokens[:, :steps].tolist()
        scores, logprobs = self._score.tolist(), self._logprobs[:, :steps].tolist()

        def found(row: int) -> Found:
            sequence = tokens[row]
            count = sequence.index(self._rules.eot) if self._rules.eot in sequence else steps
            return Found(sequence[:count], scores[row], logprobs[row][:count])

        groups = ([found(item * self.width + row) for row in range(self.width)] for item in items)
        return [max(group, key=lambda one: one.score / max(1, len(one.tokens))) for group in groups]


class Beam:
    """Beam search as CTranslate2 does it.

    Of twice as many candidates as beams, those among the first that end are put aside, and the
    best others take their places; an item is finished when ``width * patience`` are put aside. The
    score of a sequence is its sum of log-probabilities over its length to the power of
    ``length_penalty``.
    """

    def __init__(
        self,
        items: int,
        width: int,
        rules: Rules,
        device: Any,
        patience: float = 1.0,
        length_penalty: float = 1.0,
    ) -> None:
        rows, self._enough = items * width, max(1, round(width * patience))
        self.width = width
        self._rules, self._items, self._penalty = rules, items, length_penalty
        self._slots = self._enough - 1 + width
        whole: dict[str, Any] = {"dtype": torch.long, "device": device}
        self.last, self.parents = torch.zeros(rows, **whole), torch.zeros(rows, **whole)
        self.finished = torch.zeros(items, dtype=torch.bool, device=device)
        self._before, self._latest = torch.zeros(rows, **whole), torch.zeros(rows, **whole)
        self._was_finished = torch.zeros_like(self.finished)  # before the last step
        self._score = torch.zeros(items, width, device=device)
        self._step = torch.zeros(1, **whole)
        self._tokens = torch.zeros(items, width, CONTEXT, **whole)
        self._spare = torch.zeros(items, width, dtype=torch.bool, device=device)
        # One slot more than needed takes what is not to be kept.
        self._ended = torch.zeros(items, self._slots + 1, CONTEXT, **whole)
        self._lengths = torch.zeros(items, self._slots + 1, **whole)
        self._scores = torch.zeros(items, self._slots + 1, device=device)
        self._count = torch.zeros(items, **whole)
        self._own = torch.arange(rows, **whole)
        self._first_row = (torch.arange(items, **whole) * width)[:, None]
        self._ranks = torch.arange(width, **whole).expand(items, width)

    def reset(self, used: int) -> None:
        """See ``Search``."""
        self.finished.zero_()
        self.finished[used:] = True
        self._score.fill_(_NEVER)
        self._score[:, 0] = 0.0  # all beams begin as one
        self._step.zero_()
        self._count.zero_()
        self._scores.fill_(_NEVER)
        self._lengths.zero_()
        self._tokens.fill_(self._rules.eot)
        self.parents.copy_(self._own)

    def begin(self, logits: Any) -> None:
        """See ``Search``."""
        self._latest.zero_()
        self._take(self._rules.first(logits).repeat_interleave(self.width, dim=0))
        self._before.copy_(self.last)

    def take(self, logits: Any) -> None:
        """See ``Search``."""
        before = self.last.clone()
        self._take(self._rules.apply(logits, self.last, self._before, self._latest))
        self._before.copy_(before[self.parents])

    def _take(self, allowed: Any) -> None:
        items, width, eot = self._items, self.width, self._rules.eot
        self._was_finished.copy_(self.finished)
        best, token = allowed.topk(2 * width, dim=1)
        best = best - allowed.logsumexp(dim=1, keepdim=True)
        total = (best.view(items, width, -1) + self._score[..., None]).view(items, -1)
        scores, place = total.topk(2 * width, dim=1)
        token, beam = token.view(items, -1).gather(1, place), place // (2 * width)
        ends = token == eot
        self._put_aside(ends[:, :width], beam[:, :width], scores[:, :width])
        # The best of the others move up, in order, to where a sequence has ended.
        others = torch.sort(ends[:, width:].to(torch.uint8), dim=1, stable=True).indices + width
        rank = ends[:, :width].long().cumsum(dim=1) - 1
        kept = torch.where(ends[:, :width], others.gather(1, rank.clamp(min=0)), self._ranks)
        self._spare.copy_(ends[:, :width])
        self._go_on(token.gather(1, kept), beam.gather(1, kept), scores.gather(1, kept))

    def _put_aside(self, ends: Any, beam: Any, scores: Any) -> None:
        ends = ends & ~self.finished[:, None]
        slot = self._count[:, None] + ends.long().cumsum(dim=1) - 1
        slot = torch.where(ends, slot, self._slots)
        sequences = self._tokens.gather(1, beam[..., None].expand(-1, -1, CONTEXT))
        self._ended.scatter_(1, slot[..., None].expand_as(sequences), sequences)
        self._lengths.scatter_(1, slot, self._step.expand(slot.shape))
        self._scores.scatter_(1, slot, scores)
        self._count += ends.sum(dim=1)
        self.finished |= self._count >= self._enough

    def _go_on(self, token: Any, beam: Any, scores: Any) -> None:
        parents = (self._first_row + beam).view(-1)
        self.parents.copy_(parents)
        self._tokens.copy_(self._tokens.gather(1, beam[..., None].expand(-1, -1, CONTEXT)))
        self._tokens.index_copy_(2, self._step, token[..., None])
        self._score.copy_(scores)
        token = token.reshape(-1)
        latest = self._latest[parents]
        self._latest.copy_(torch.where(token >= self._rules.begin, token, latest))
        self.last.copy_(token)
        self._step += 1

    def follow(self, other: Beam, items: Any, used: int) -> None:
        """See ``Search``."""
        # What a row holds of its own was put in the order of the new rows when they were chosen.
        rows = rows_of(items, self.width)
        for name in ("last", "_before", "_latest"):
            getattr(self, name).copy_(getattr(other, name)[rows])
        for name in (
            "finished", "_was_finished", "_score", "_tokens", "_spare", "_ended", "_lengths",
            "_scores", "_count",
        ):  # fmt: skip
            getattr(self, name).copy_(getattr(other, name)[items])
        self.finished[used:] = True
        self._step.copy_(other._step)
        self.parents.copy_(self._own)

    def results(self, items: Sequence[int], steps: int, cut: bool) -> list[Found]:
        """See ``Search``; where the text was cut off, unfinished sequences count as well."""
        counts, finished = self._count.tolist(), self._was_finished.tolist()
        lengths, scores = self._lengths.tolist(), self._scores.tolist()
        ended, alive = self._ended[..., :steps].tolist(), self._tokens[..., :steps].tolist()
        spare, alive_scores = self._spare.tolist(), self._score.tolist()
        answers = []
        for i in items:
            found = [Found(ended[i][k][: lengths[i][k]], scores[i][k]) for k in range(counts[i])]
            if cut and not finished[i]:
                rest = [k for k in range(self.width) if not spare[i][k]]
                found += [Found(alive[i][k][:steps], alive_scores[i][k]) for k in rest]
            answers.append(max(found, key=self._normalised))
        return answers

    def _normalised(self, found: Found) -> float:
        return float(found.score / max(1, len(found.tokens)) ** self._penalty)


def rows_of(items: Any, width: int) -> Any:
    """The rows of some items, on their device."""
    return (items[:, None] * width + torch.arange(width, device=items.device)).view(-1)
