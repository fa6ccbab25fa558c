"""Train the model in stages of processor time (of one of the processes); resumable; one process a core.

python train.py --minutes 72                 # starts, or goes on from runs/last.pt
"""

import argparse
import json
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from batches import DATA, Batch, Feed, stage_at
from features import log_mel
from model import Rest, Shape, Whisper
from text import normalise, vocabulary
from tokens import EOT, LANG_IDS, NO_TIMESTAMPS, SOT, TRANSCRIBE, TokenSet, tokenizer
from windows import COUNTED, RATE, Corpus

HERE = Path(__file__).parent
EMA = 0.999


def losses(model: Whisper, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Cross-entropy, CTC, and how far the guided heads look away from the words."""
    states = model.encode(batch.mels, batch.rest)
    logits, seen = model.decode(batch.inputs, states, batch.rest)
    ce = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=-1)
    letters = (
        model.ctc(states[:, : batch.mels.shape[2] // 2]).float().log_softmax(-1).transpose(0, 1)
    )
    flat = torch.tensor([c for item in batch.ctc for c in item], dtype=torch.long)
    counts = torch.tensor([len(item) for item in batch.ctc])
    fits = torch.tensor(batch.ctc_lengths)
    ctc = F.ctc_loss(letters, flat, fits, counts, reduction="none", zero_infinity=True)
    ctc = (ctc / counts.clamp(min=4)).mean()
    guide = ce.new_zeros(())
    if batch.spans:
        item, row, first, last = (torch.tensor(c) for c in zip(*batch.spans, strict=True))
        size = last + 1 - first
        for heads in seen:
            # Cross-entropy against an even spread over the word, less the least it can be.
            total = F.pad(heads.clamp(min=-9).cumsum(-1), (1, 0))
            within = (total[item, row, last + 1] - total[item, row, first]) / size
            guide = guide - (within + size.log()).mean() / len(seen)
    return ce, ctc, guide


def rate(step: int, done: float) -> float:
    """Learning rate: a short warm-up, then a cosine over the whole time."""
    return min(step / 150, 1.0) * (2e-5 + 1.5e-3 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0))))


@torch.no_grad()
def greedy(model: Whisper, tokens: TokenSet, mels: Tensor, lang: list[str]) -> list[str]:
    """Texts without timestamps."""
    rest = Rest.sample(torch.zeros(len(lang)), mels.shape[2] // 2, None)
    states = model.encode(mels, rest)
    rows = [[SOT, LANG_IDS[code], TRANSCRIBE, NO_TIMESTAMPS] for code in lang]
    ids = torch.tensor([[tokens.compact(t) for t in row] for row in rows])
    ended = torch.zeros(len(lang), dtype=torch.bool)
    stop = tokens.compact(EOT)
    for _ in range(60):
        best = model.decode(ids, states, rest)[0][:, -1, : tokens.text_count].argmax(-1)
        best[ended] = stop
        ended |= best == stop
        ids = torch.cat([ids, best[:, None]], 1)
        if ended.all():
            break
    return [
        tokenizer().decode([t for i in row[4:] if (t := tokens.full(int(i))) < EOT]) for row in ids
    ]


def errors(said: list[str], heard: list[str]) -> int:
    """Edit distance in words."""
    row = list(range(len(heard) + 1))
    for i, a in enumerate(said, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(heard, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]


def held_out_wer(
    model: Whisper, tokens: TokenSet, corpus: Corpus, seconds: float, count: int
) -> dict[str, float]:
    """Word error rate on clean held-out voices, by language and kind."""
    rng = np.random.default_rng(5)
    result = {}
    for lang in ("en", "ru"):
        items = [corpus.pick(rng, lang, seconds - 0.3) for _ in range(count)]
        wrong = {"numbers": 0, "others": 0}
        total = dict(wrong)
        for at in range(0, count, 16):
            some = [u for u in items[at : at + 16] if u is not None]
            audio = np.zeros((len(some), int(seconds * RATE)), np.float32)
            for i, u in enumerate(some):
                audio[i, 1600 : 1600 + len(u.samples)] = u.samples.astype(np.float32) / 32768
            texts = greedy(model, tokens, log_mel(torch.from_numpy(audio)), [lang] * len(some))
            for u, text in zip(some, texts, strict=True):
                kind = "numbers" if u.kind in COUNTED else "others"
                said = normalise(" ".join(u.words))
                wrong[kind] += errors(said, normalise(text))
                total[kind] += len(said)
        result |= {f"{lang}_{k}": wrong[k] / max(total[k], 1) for k in total}
    return result


class Trainer:
    """One process of the run."""

    def __init__(self, rank: int, size: int, minutes: float, runs: Path) -> None:
        self.rank, self.size, self.runs = rank, size, runs
        self.seconds = minutes * 60
        # Nearly twice as fast where the processor multiplies bfloat16 itself.
        self.coarse = torch.cpu._is_avx512_bf16_supported()
        torch.manual_seed(7)
        self.tokens = TokenSet.of_words(vocabulary())
        self.model = Whisper(Shape(), self.tokens.text_count, self.tokens.unused)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), 1e-3, (0.9, 0.98), weight_decay=0.01, fused=True
        )
        self.ema = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.step, self.samples, self.elapsed, self.best = 0, 0, 0.0, 9.0
        self._resume()
        self.warm_from = self.step if not self.optimizer.state else -1000  # only a fresh optimizer
        self.done = torch.zeros(1).share_memory_()
        self.done[0] = self.elapsed / self.seconds
        feed = Feed(rank, self.step, self.done, self.tokens)
        self.batches = iter(DataLoader(feed, None, num_workers=1, prefetch_factor=12))
        self.held = Corpus(DATA, held=True) if rank == 0 else None

    def _resume(self) -> None:
        path = self.runs / "last.pt"
        if path.exists():
            state = torch.load(path, weights_only=False)
            self.model.load_state_dict(state["model"], strict=False)
            self.ema = state["ema"]
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.samples, self.elapsed, self.best = (
                state[k] for k in ("step", "samples", "elapsed", "best")
            )

    def run(self) -> None:
        """Train until the time is over."""
        # Processor time: a run that had to wait for others must not have its rate fall meanwhile.
        began, told, saved = time.process_time() - self.elapsed, time.monotonic(), time.monotonic()
        sums = np.zeros(4)
        while True:
            clock = torch.tensor([time.process_time() - began])
            dist.broadcast(clock, 0)
            self.elapsed = float(clock)
            done = self.elapsed / self.seconds
            self.done[0] = done
            sums += [*self._one(done), 1]
            if self.rank == 0 and time.monotonic() - told > 60:
                told = time.monotonic()
                ce, ctc, guide = sums[:3] / sums[3]
                self._say(
                    {
                        "loss": ce,
                        "ctc": ctc,
                        "guide": guide,
                        "lr": rate(self.step - self.warm_from, done),
                        "done": done,
                    }
                )
                sums[:] = 0
            if self.rank == 0 and (time.monotonic() - saved > 600 or done >= 1):
                saved = time.monotonic()
                self._save()
            if done >= 1:
                return

    def _one(self, done: float) -> tuple[float, float, float]:
        stage, batch = stage_at(done), next(self.batches)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.coarse):
            ce, ctc, guide = losses(self.model, batch)
        self.optimizer.zero_grad()
        (ce + stage.ctc * ctc + stage.guide * guide).backward()
        self._share_gradients()
        for group in self.optimizer.param_groups:
            group["lr"] = rate(self.step - self.warm_from, done)
        self.optimizer.step()
        self.step += 1
        self.samples += len(batch.mels) * self.size
        decay = min(EMA, self.step / (self.step + 50))
        live = self.model.state_dict()
        torch._foreach_lerp_([self.ema[k] for k in live], list(live.values()), 1 - decay)
        return float(ce.detach()), float(ctc.detach()), float(guide.detach())

    def _share_gradients(self) -> None:
        """Average over the processes, and clip to norm 1."""
        parameters = list(self.model.parameters())
        if self.size == 1:
            torch.nn.utils.clip_grad_norm_(parameters, 1.0, foreach=True)
            return
        grads = torch.cat(
            [p.grad.flatten() if p.grad is not None else torch.zeros(p.numel()) for p in parameters]
        )
        dist.all_reduce(grads)
        grads /= self.size
        grads *= min(1.0, 1.0 / (float(grads.norm()) + 1e-6))
        at = 0
        for p in parameters:
            p.grad = grads[at : at + p.numel()].view_as(p).clone()
            at += p.numel()

    def _say(self, figures: dict[str, float]) -> None:
        line = {"minute": round(self.elapsed / 60, 1), "step": self.step, "samples": self.samples}
        print(json.dumps(line | {k: round(v, 5) for k, v in figures.items()}), flush=True)

    def _save(self) -> None:
        assert self.held is not None
        live = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        self.model.load_state_dict(self.ema)
        self.model.eval()
        wer = held_out_wer(self.model, self.tokens, self.held, 8.0, 96)
        self.model.load_state_dict(live)
        self.model.train()
        self._say({f"wer_{k}": v for k, v in wer.items()})
        state = {
            "model": live, "ema": self.ema, "optimizer": self.optimizer.state_dict(), "step": self.step,
            "samples": self.samples, "elapsed": self.elapsed, "best": self.best,
            "text_ids": self.tokens.text_ids, "shape": self.model.shape.to_dict(), "wer": wer,
        }  # fmt: skip
        partial = self.runs / "last.tmp"
        torch.save(state, partial)
        os.replace(partial, self.runs / "last.pt")
        if (mean := sum(wer.values()) / len(wer)) < self.best:
            self.best = mean
            torch.save(
                {k: v for k, v in state.items() if k not in ("model", "optimizer")},
                self.runs / "best.pt",
            )


def work(rank: int, size: int, minutes: float, runs: Path) -> None:
    """Entry of each process."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29531"}
    dist.init_process_group("gloo", rank=rank, world_size=size)
    Trainer(rank, size, minutes, runs).run()
    dist.destroy_process_group()


def main() -> None:
    """Read the arguments and start the processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=72)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--runs", type=Path, default=HERE / "runs")
    args = parser.parse_args()
    args.runs.mkdir(exist_ok=True)
    if args.processes == 1:
        work(0, 1, args.minutes, args.runs)
    else:
        mp.spawn(work, (args.processes, args.minutes, args.runs), args.processes)


if __name__ == "__main__":
    main()
