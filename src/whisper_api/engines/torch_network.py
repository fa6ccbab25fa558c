"""Whisper's two halves over the weights that transformers has loaded.

The encoder runs transformers' own layers (with the attention chosen at loading), for windows of any
length. The decoder is written out here: one matrix for query, key and value, keys and values of the
audio computed once for a window, those of the text in memory of fixed size, beams of one window
sharing the audio's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

Pair = tuple[Any, Any]  # keys and values


def encode(encoder: Any, mels: Any) -> Any:
    """``[windows, mels, frames]`` -> ``[windows, frames / 2, width]`` by a WhisperEncoder."""
    states = functional.gelu(encoder.conv1(mels))
    states = functional.gelu(encoder.conv2(states)).permute(0, 2, 1)
    # Sums keep the order in memory of their first number: without a copy every layer would go
    # through what lies across.
    states = states.contiguous() + encoder.embed_positions.weight[: states.shape[1]]
    for layer in encoder.layers:
        states = layer(states, None)
        # transformers 4 answers with a tuple.
        states = states[0] if isinstance(states, tuple) else states
    return encoder.layer_norm(states)


@dataclass(frozen=True, slots=True)
class Linear:
    """A matrix and its bias."""

    weight: Any
    bias: Any

    def __call__(self, states: Any) -> Any:
        return functional.linear(states, self.weight, self.bias)

    @classmethod
    def joined(cls, *parts: Any) -> Linear:
        """Several layers of one input as one; missing biases are zero."""
        biases = [
            part.bias if part.bias is not None else torch.zeros_like(part.weight[:, 0])
            for part in parts
        ]
        return cls(torch.cat([part.weight for part in parts]), torch.cat(biases))


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of the decoder."""

    self_norm: Any
    self_in: Linear  #: query, key and value
    self_out: Any
    cross_norm: Any
    cross_query: Any
    cross_in: Linear  #: key and value of the audio
    cross_out: Any
    norm: Any
    inner: Any
    activation: Any
    outer: Any

    @classmethod
    def of(cls, layer: Any) -> Layer:
        """From a WhisperDecoderLayer."""
        own, cross = layer.self_attn, layer.encoder_attn
        return cls(
            layer.self_attn_layer_norm,
            Linear.joined(own.q_proj, own.k_proj, own.v_proj),
            own.out_proj,
            layer.encoder_attn_layer_norm,
            cross.q_proj,
            Linear.joined(cross.k_proj, cross.v_proj),
            cross.out_proj,
            layer.final_layer_norm,
            layer.fc1,
            layer.activation_fn,
            layer.fc2,
        )


class Decoder:
    """The decoder of a WhisperForConditionalGeneration, whose own is taken apart for it."""

    def __init__(self, model: Any) -> None:
        decoder = model.model.decoder
        self.heads = int(model.config.decoder_attention_heads)
        self.width = int(model.config.d_model)
        self._embedding = decoder.embed_tokens.weight
        self._positions = decoder.embed_positions.weight
        self._norm = decoder.layer_norm
        self._output = model.proj_out.weight
        self.layers: list[Layer] = []
        for index in range(len(decoder.layers)):
            self.layers.append(Layer.of(decoder.layers[index]))
            # The joined matrices are copies: let go of the originals layer by layer.
            decoder.layers[index] = torch.nn.Identity()

    @property
    def size(self) -> int:
        """Tokens the output layer knows."""
        return int(self._output.shape[0])

    def cross(self, encodings: Any) -> Iterator[Pair]:
        """Each layer's keys and values of the audio: ``[windows, heads, positions, width]``.

        Layer by layer: all of them together take as much memory as the decoder has for them.
        """
        for layer in self.layers:
            yield self._split(layer.cross_in(encodings), 2)

    def step(
        self, tokens: Any, positions: Any, memory: Sequence[Pair], cross: Sequence[Pair], span: int
    ) -> Any:
        """States ``[rows, tokens, width]`` after reading ``tokens`` ``[rows, n]``.

        ``positions`` (int64 ``[n]``, on the device) says where they stand. Their keys and values
        are written into ``memory`` (``[rows, heads, context, width]``), of which the first ``span``
        positions are looked at. ``cross`` may hold fewer windows than there are rows: rows of one
        window stand together then.
        """
        mask = positions[:, None] >= torch.arange(span, device=positions.device)
        states = self._embed(tokens, positions)
        for layer, (keys, values), audio in zip(self.layers, memory, cross, strict=True):
            query, key, value = self._split(layer.self_in(layer.self_norm(states)), 3)
            keys.index_copy_(2, positions, key)
            values.index_copy_(2, positions, value)
            seen = functional.scaled_dot_product_attention(
                query, keys[:, :, :span], values[:, :, :span], attn_mask=mask
            )
            states = states + layer.self_out(_merge(seen))
            states = self._look(layer, states, audio)
            states = states + layer.outer(layer.activation(layer.inner(layer.norm(states))))
        return self._norm(states)

    def read(
        self, tokens: Any, cross: Iterable[Pair], heads: Sequence[tuple[int, int]]
    ) -> tuple[Any, Any]:
        """Read whole texts ``[windows, n]`` at once, without memory.

        Answers the states, and what the (layer, head) pairs paid to the audio, before the softmax:
        float32 ``[windows, heads, n, positions]``.
        """
        states = self._embed(tokens, torch.arange(tokens.shape[1], device=tokens.device))
        paid = []
        for number, (layer, audio) in enumerate(zip(self.layers, cross, strict=True)):
            query, key, value = self._split(layer.self_in(layer.self_norm(states)), 3)
            seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
            states = states + layer.self_out(_merge(seen))
            if mine := [head for wanted, head in heads if wanted == number]:
                paid.append(self._paid(layer, states, audio[0], mine))
            states = self._look(layer, states, audio)
            states = states + layer.outer(layer.activation(layer.inner(layer.norm(states))))
        return self._norm(states), torch.cat(paid, dim=1)

    def logits(self, states: Any) -> Any:
        """Float32 over the vocabulary, of states of any shape."""
        return functional.linear(states, self._output).float()

    def _embed(self, tokens: Any, positions: Any) -> Any:
        return functional.embedding(tokens, self._embedding) + self._positions[positions]

    def _look(self, layer: Layer, states: Any, audio: Pair) -> Any:
        """The states after attention to the audio; beams are queries of one window."""
        rows, count, width = states.shape
        windows = audio[0].shape[0]
        query = layer.cross_query(layer.cross_norm(states)).view(
            windows, rows // windows * count, self.heads, width // self.heads
        )
        seen = functional.scaled_dot_product_attention(query.transpose(1, 2), *audio)
        return states + layer.cross_out(_merge(seen).view(rows, count, width))

    def _paid(self, layer: Layer, states: Any, keys: Any, heads: list[int]) -> Any:
        query = self._split(layer.cross_query(layer.cross_norm(states)), 1)[0][:, heads]
        scale = (self.width // self.heads) ** -0.5
        return torch.matmul(query.float(), keys[:, heads].float().transpose(2, 3)) * scale

    def _split(self, states: Any, parts: int) -> Any:
        """``[rows, n, parts * width]`` -> parts of ``[rows, heads, n, width / heads]``."""
        rows, count, _ = states.shape
        split = states.view(rows, count, parts, self.heads, self.width // self.heads)
        return split.permute(2, 0, 3, 1, 4).unbind(0)


def _merge(states: Any) -> Any:
    rows, heads, count, width = states.shape
    return states.transpose(1, 2).reshape(rows, count, heads * width)
