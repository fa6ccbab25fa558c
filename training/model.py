"""Whisper's architecture, small: 80 mels, 1,500 audio positions, 448 text positions, tied embeddings.

Only the rows of the ids in use are trained. All others stay zero, and a single column with the
constant logit log(number of unused ids) stands for them, which is exactly the full softmax.
"""

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

AUDIO_POSITIONS = 1500
CTC_LETTERS = "_ abcdefghijklmnopqrstuvwxyzабвгдеёжзийклмнопрстуфхцчшщъыьэюя"


@dataclass(frozen=True)
class Shape:
    """Sizes of the network, and the cross-attention heads that are taught to point at words."""

    width: int = 128
    heads: int = 4
    encoder_layers: int = 4
    decoder_layers: int = 3
    inner: int = 512
    mels: int = 80
    audio_positions: int = AUDIO_POSITIONS
    text_positions: int = 448
    alignment_heads: tuple[tuple[int, int], ...] = ((1, 0), (2, 0))

    def to_dict(self) -> dict[str, object]:
        """Plain data, for the checkpoint."""
        return asdict(self)


def sinusoids(length: int, width: int) -> Tensor:
    """Whisper's position table."""
    steps = torch.exp(-math.log(10000) / (width // 2 - 1) * torch.arange(width // 2))
    angles = torch.arange(length)[:, None] * steps[None]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


@dataclass
class Rest:
    """The padding up to 30 s, of which a sample is computed: one place in each stretch of equal length.

    A short window then behaves as in a full one, at a fraction of the work: the padding's features
    are constant, so its states differ by position only, and one of them stands for its stretch.
    """

    values: Tensor  # the padding's mel value in each window
    places: Tensor  # the encoder positions that are computed
    stretch: float  # how many positions each stands for

    @classmethod
    def sample(
        cls,
        values: Tensor,
        length: int,
        generator: torch.Generator | None,
        total: int = AUDIO_POSITIONS,
    ) -> "Rest":
        """Places up to `total` drawn at random, or the middles without a generator."""
        count = max((total - length) // 30, 1)
        stretch = (total - length) / count
        inside = torch.rand(count, generator=generator) if generator else torch.full((count,), 0.5)
        places = length + ((torch.arange(count) + inside) * stretch).long()
        return cls(values, places, stretch)

    def bias(self, length: int) -> Tensor:
        """What to add to attention scores: the logarithm of how many positions each stands for."""
        return torch.cat(
            [torch.zeros(length), torch.full((len(self.places),), math.log(self.stretch))]
        )


class Attention(nn.Module):
    """Multi-head attention, Whisper's biases (none on the keys)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(
        self,
        x: Tensor,
        source: Tensor,
        causal: bool = False,
        look: int | None = None,
        bias: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend; with `look`, also return that head's log-probabilities. `bias` is added to all scores."""
        split = (x.shape[0], -1, self.heads, x.shape[2] // self.heads)
        q, k, v = (
            p.view(split).transpose(1, 2)
            for p in (self.query(x), self.key(source), self.value(source))
        )
        mask = None if bias is None else bias.expand(1, 1, q.shape[2], -1)
        # In bfloat16 the backward pass takes twice as long.
        with torch.autocast("cpu", enabled=False):
            q, k, v = q.float(), k.float(), v.float()
            mixed = F.scaled_dot_product_attention(q, k, v, mask, is_causal=causal)
        seen = None
        if look is not None:
            scores = q[:, look] @ k[:, look].transpose(1, 2) / math.sqrt(split[3])
            seen = (scores if bias is None else scores + bias).float().log_softmax(-1)
        return self.out(mixed.transpose(1, 2).flatten(2)), seen


class Block(nn.Module):
    """A pre-norm layer; the decoder's has cross-attention too."""

    def __init__(self, shape: Shape, cross: bool) -> None:
        super().__init__()
        self.attention = Attention(shape.width, shape.heads)
        self.attention_norm = nn.LayerNorm(shape.width)
        self.cross = Attention(shape.width, shape.heads) if cross else None
        self.cross_norm = nn.LayerNorm(shape.width) if cross else None
        self.inner = nn.Linear(shape.width, shape.inner)
        self.outer = nn.Linear(shape.inner, shape.width)
        self.inner_norm = nn.LayerNorm(shape.width)

    def forward(
        self,
        x: Tensor,
        audio: Tensor | None = None,
        look: int | None = None,
        bias: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """One layer; the log-probabilities of the looked-at cross-attention head come along."""
        normed = self.attention_norm(x)
        own = bias if self.cross is None else None
        x = x + self.attention(normed, normed, self.cross is not None, bias=own)[0]
        seen = None
        if self.cross is not None and self.cross_norm is not None and audio is not None:
            mixed, seen = self.cross(self.cross_norm(x), audio, look=look, bias=bias)
            x = x + mixed
        return x + self.outer(F.gelu(self.inner(self.inner_norm(x)))), seen


class Whisper(nn.Module):
    """Encoder, decoder, and a character CTC head that only training uses."""

    def __init__(self, shape: Shape, text_count: int, unused: int) -> None:
        super().__init__()
        self.shape = shape
        width = shape.width
        self.conv1 = nn.Conv1d(shape.mels, width, 3, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.encoder = nn.ModuleList(Block(shape, False) for _ in range(shape.encoder_layers))
        self.encoder_norm = nn.LayerNorm(width)
        self.ctc = nn.Linear(width, len(CTC_LETTERS))
        self.tokens = nn.Parameter(torch.randn(text_count, width) * 0.05)
        self.time_map = nn.Parameter(torch.randn(width, width) * 0.05 / 8)
        self.positions = nn.Parameter(torch.randn(shape.text_positions, width) * 0.02)
        self.decoder = nn.ModuleList(Block(shape, True) for _ in range(shape.decoder_layers))
        self.decoder_norm = nn.LayerNorm(width)
        self.register_buffer("sines", sinusoids(shape.audio_positions + 1, width), persistent=False)
        self.unused_logit = math.log(unused)

    def table(self) -> Tensor:
        """Embedding rows of the ids in use: a timestamp's row is a linear map of its sinusoid."""
        return torch.cat([self.tokens, self.sines @ self.time_map.T])  # type: ignore[operator]

    def encode(self, mels: Tensor, rest: Rest | None = None) -> Tensor:
        """Mels (batch, 80, frames) -> states; with `rest`, a sample of the padding's states behind them."""
        length = mels.shape[2] // 2
        if rest is not None:
            mels = torch.cat([mels, rest.values[:, None, None].expand(-1, mels.shape[1], 8)], 2)
        x = F.gelu(self.conv1(mels))
        x = F.gelu(self.conv2(x)).transpose(1, 2)
        bias = None
        if rest is not None:
            places = torch.cat([torch.arange(length), rest.places])
            x = torch.cat(
                [x[:, :length], x[:, length + 2, None].expand(-1, len(rest.places), -1)], 1
            )
            x, bias = x + self.sines[places], rest.bias(length)  # type: ignore[index]
        else:
            x = x + self.sines[:length]  # type: ignore[index]
        for block in self.encoder:
            x, _ = block(x, bias=bias)
        return self.encoder_norm(x)

    def decode(
        self, tokens: Tensor, audio: Tensor, rest: Rest | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Compact ids -> logits (one more column: all unused ids together), and the guided heads."""
        table = self.table()
        x = F.embedding(tokens, table) + self.positions[: tokens.shape[1]]
        heads = dict(self.shape.alignment_heads)
        bias = None if rest is None else rest.bias(audio.shape[1] - len(rest.places))
        seen = []
        for number, block in enumerate(self.decoder):
            x, probabilities = block(x, audio, heads.get(number), bias)
            if probabilities is not None:
                seen.append(probabilities)
        with torch.autocast("cpu", enabled=False):
            logits = self.decoder_norm(x.float()) @ table.T
        constant = logits.new_full((*logits.shape[:2], 1), self.unused_logit)
        return torch.cat([logits, constant], dim=2), seen
