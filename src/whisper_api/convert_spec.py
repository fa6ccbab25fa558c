"""The weights of a checkpoint as CTranslate2's WhisperSpec, each read when it is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from ctranslate2.specs import WhisperSpec
from ctranslate2.specs.model_spec import Variable
from numpy.typing import NDArray

from whisper_api.checkpoint import Sizes, Tensors
from whisper_api.errors import ModelBroken

Reader = Callable[[str], NDArray[np.float32]]


def build_spec(sizes: Sizes, tensors: Tensors) -> Any:
    """A WhisperSpec with every weight in its place.

    Raises:
        ModelBroken: a tensor is missing or has another shape than the configuration says.
    """
    spec = WhisperSpec(
        sizes.encoder_layers, sizes.encoder_heads, sizes.decoder_layers, sizes.decoder_heads
    )
    SpecWriter(tensors).fill(spec, sizes)
    return spec


class LazyVariable(Variable):  # type: ignore[misc]
    """Tensors under each other, read and turned into ``kind`` at the moment they are needed."""

    def __init__(
        self, names: tuple[str, ...], shape: tuple[int, ...], read: Reader, kind: str = "float32"
    ) -> None:
        """``shape`` is that of all ``names`` together."""
        self._names = names
        self._shape = shape
        self._read = read
        self._kind = kind

    @property
    def shape(self) -> list[int]:
        """Rows of all parts, then the other dimensions."""
        return list(self._shape)

    @property
    def dtype(self) -> str:
        """Name of the number format."""
        return self._kind

    def numpy(self) -> NDArray[Any]:
        """A fresh array; the caller may change it."""
        parts = [self._read(name).astype(self._kind, copy=False) for name in self._names]
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    def num_bytes(self) -> int:
        """Size once written."""
        return int(np.prod(self._shape, dtype=np.int64)) * np.dtype(self._kind).itemsize

    def to_bytes(self) -> bytes:
        """As written to the file."""
        return self.numpy().tobytes()

    def _to(self, dtype: str) -> LazyVariable:
        return LazyVariable(self._names, self._shape, self._read, dtype)

    def _equal(self, other: LazyVariable) -> bool:
        # Only the tied output layer is worth an alias; comparing contents would read everything.
        return self._names == other._names


class SpecWriter:
    """Puts tensors under transformers' names into CTranslate2's layers.

    The layout is CTranslate2's (``specs/whisper_spec.py``): a self-attention has one linear layer
    of queries, keys and values under each other, a cross-attention one of queries and one of
    keys and values; Whisper's keys have no bias, which becomes zeros.
    """

    def __init__(self, tensors: Tensors) -> None:
        self._tensors = tensors

    def fill(self, spec: Any, sizes: Sizes) -> None:
        """Set every weight of a WhisperSpec."""
        self._weights(spec.encoder.conv1, "encoder.conv1")
        self._weights(spec.encoder.conv2, "encoder.conv2")
        self._check(sizes)
        self._shared(spec.encoder, "encoder")
        for i, layer in enumerate(spec.encoder.layer):
            self._layer(layer, f"encoder.layers.{i}")
        self._shared(spec.decoder, "decoder")
        spec.decoder.embeddings.weight = self._lazy("decoder.embed_tokens.weight")
        spec.decoder.projection.weight = self._lazy(self._projection())
        for i, layer in enumerate(spec.decoder.layer):
            name = f"decoder.layers.{i}"
            self._layer(layer, name)
            cross = layer.attention
            self._norm(cross.layer_norm, f"{name}.encoder_attn_layer_norm")
            self._stack(cross.linear[0], f"{name}.encoder_attn", "q")
            self._stack(cross.linear[1], f"{name}.encoder_attn", "kv")
            self._weights(cross.linear[2], f"{name}.encoder_attn.out_proj")

    def _projection(self) -> str:
        """Whisper's output layer is its embedding; a stored copy counts only where it differs."""
        tied, stored = "decoder.embed_tokens.weight", "proj_out.weight"
        if stored not in self._tensors:
            return tied
        same = np.array_equal(self._tensors.float32(stored), self._tensors.float32(tied))
        return tied if same else stored

    def _check(self, sizes: Sizes) -> None:
        found = self._tensors.shape("encoder.conv1.weight")[1]
        words = self._tensors.shape("decoder.embed_tokens.weight")[0]
        if found != sizes.mels or words != sizes.vocabulary:
            raise ModelBroken(
                f"The weights are for {found} mel bins and {words} tokens, but config.json says"
                f" {sizes.mels} and {sizes.vocabulary}."
            )

    def _shared(self, part: Any, name: str) -> None:
        part.position_encodings.encodings = self._lazy(f"{name}.embed_positions.weight")
        self._norm(part.layer_norm, f"{name}.layer_norm")

    def _layer(self, layer: Any, name: str) -> None:
        self._norm(layer.self_attention.layer_norm, f"{name}.self_attn_layer_norm")
        self._stack(layer.self_attention.linear[0], f"{name}.self_attn", "qkv")
        self._weights(layer.self_attention.linear[1], f"{name}.self_attn.out_proj")
        self._norm(layer.ffn.layer_norm, f"{name}.final_layer_norm")
        self._weights(layer.ffn.linear_0, f"{name}.fc1")
        self._weights(layer.ffn.linear_1, f"{name}.fc2")

    def _weights(self, spec: Any, name: str) -> None:
        spec.weight = self._lazy(f"{name}.weight")
        spec.bias = self._lazy(f"{name}.bias")

    def _norm(self, spec: Any, name: str) -> None:
        spec.gamma = self._lazy(f"{name}.weight")
        spec.beta = self._lazy(f"{name}.bias")

    def _stack(self, spec: Any, name: str, parts: str) -> None:
        spec.weight = self._lazy(*(f"{name}.{part}_proj.weight" for part in parts))
        spec.bias = self._lazy(*(f"{name}.{part}_proj.bias" for part in parts))

    def _lazy(self, *names: str) -> Any:
        shapes = [self._shape(name) for name in names]
        rows = sum(shape[0] for shape in shapes)
        return LazyVariable(names, (rows, *shapes[0][1:]), self._read)

    def _shape(self, name: str) -> tuple[int, ...]:
        if name not in self._tensors and name.endswith(".k_proj.bias"):
            return self._tensors.shape(name.replace("k_proj.bias", "k_proj.weight"))[:1]
        return self._tensors.shape(name)

    def _read(self, name: str) -> NDArray[np.float32]:
        if name not in self._tensors:
            return np.zeros(self._shape(name), np.float32)
        return self._tensors.float32(name)
