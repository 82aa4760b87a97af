"""Small transformers with accessible attention patterns: attention-only, or like GPT-2."""

from typing import Literal

import torch
from torch import Tensor, nn

Positions = Literal["relative", "learned"]


class TokenTransformer(nn.Module):
    """A causal language model of a few attention layers.

    Args:
        vocab_size: Number of different tokens.
        max_length: Longest sequence.
        dim: Dimension of the residual stream; a multiple of ``heads``.
        layers: Number of attention layers.
        heads: Heads per layer.
        positions: ``relative`` adds a learned bias for each head and distance to the attention
            logits; ``learned`` adds learned vectors to the embeddings, as in GPT-2.
        mlp: Add a GELU network of width ``4 dim`` after each attention layer, as in GPT-2.

    Raises:
        ValueError: An argument is outside its range.
    """

    def __init__(
        self,
        vocab_size: int,
        max_length: int,
        dim: int = 64,
        layers: int = 2,
        heads: int = 2,
        positions: Positions = "relative",
        mlp: bool = False,
    ) -> None:
        super().__init__()
        if vocab_size < 2:
            raise ValueError(f"vocab_size={vocab_size}: expected at least 2 tokens")
        self.vocab_size = vocab_size
        self.max_length = max_length
        self.embed = nn.Embedding(vocab_size, dim)
        nn.init.normal_(self.embed.weight, std=0.1)
        self.stack = AttentionStack(max_length, dim, layers, heads, positions, mlp)
        self.unembed = nn.Linear(dim, vocab_size, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Compute logits ``(batch, length, vocab_size)`` of tokens ``(batch, length)``."""
        return self.unembed(self.stack(self.embed(tokens)))

    def attention_patterns(self, tokens: Tensor) -> list[Tensor]:
        """Return each layer's attention ``(batch, heads, length, length)``; rows sum to 1."""
        patterns: list[Tensor] = []
        self.stack(self.embed(tokens), patterns)
        return patterns


class VectorTransformer(nn.Module):
    """A transformer on sequences of vectors that predicts vectors at the last position.

    Args:
        input_dim: Dimension of a token.
        outputs: Number of predicted vectors, each of dimension ``input_dim``.
        max_length: Longest sequence.
        dim: Dimension of the residual stream; a multiple of ``heads``.
        layers: As in :class:`TokenTransformer`.
        heads: As in :class:`TokenTransformer`.
        positions: As in :class:`TokenTransformer`.
        mlp: As in :class:`TokenTransformer`.

    Raises:
        ValueError: An argument is outside its range.
    """

    def __init__(
        self,
        input_dim: int,
        outputs: int,
        max_length: int,
        dim: int = 64,
        layers: int = 2,
        heads: int = 2,
        positions: Positions = "relative",
        mlp: bool = False,
    ) -> None:
        super().__init__()
        self.outputs = outputs
        self.embed = nn.Linear(input_dim, dim)
        self.stack = AttentionStack(max_length, dim, layers, heads, positions, mlp, norm=False)
        self.unembed = nn.Linear(dim, outputs * input_dim, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Predict ``(batch, outputs, input_dim)`` from ``(batch, length, input_dim)``."""
        return self.unembed(self.stack(self.embed(tokens))[:, -1]).unflatten(-1, (self.outputs, -1))


class AttentionStack(nn.Module):
    """Pre-norm attention layers on a residual stream ``(batch, length, dim)``."""

    def __init__(
        self,
        max_length: int,
        dim: int,
        layers: int,
        heads: int,
        positions: Positions,
        mlp: bool,
        norm: bool = True,
    ) -> None:
        super().__init__()
        for name, value in {"max_length": max_length, "layers": layers, "heads": heads}.items():
            if value < 1:
                raise ValueError(f"{name}={value}: expected at least 1")
        if dim < 1 or dim % heads:
            raise ValueError(f"dim={dim}: expected a multiple of heads={heads}")
        if positions not in ("relative", "learned"):
            raise ValueError(f"positions={positions!r}: expected 'relative' or 'learned'")
        self.max_length = max_length
        learned = positions == "learned"
        self.places = nn.Parameter(0.1 * torch.randn(max_length, dim)) if learned else None
        reach = None if learned else max_length
        self.layers = nn.ModuleList(_Layer(dim, heads, reach, mlp, norm) for _ in range(layers))
        self.norm: nn.Module = nn.LayerNorm(dim) if norm else nn.Identity()

    def forward(self, stream: Tensor, patterns: list[Tensor] | None = None) -> Tensor:
        """Compute the stream after all layers, and append their attention to ``patterns``.

        Raises:
            ValueError: A sequence is longer than ``max_length``.
        """
        length = stream.shape[1]
        if length > self.max_length:
            raise ValueError(f"length={length}: expected at most max_length={self.max_length}")
        if self.places is not None:
            stream = stream + self.places[:length]
        for layer in self.layers:
            stream = layer(stream, patterns)
        return self.norm(stream)


class _Layer(nn.Module):
    def __init__(self, dim: int, heads: int, reach: int | None, mlp: bool, norm: bool) -> None:
        super().__init__()
        self.norm: nn.Module = nn.LayerNorm(dim) if norm else nn.Identity()
        self.attention = CausalAttention(dim, heads, reach)
        self.mlp: nn.Module | None = None
        if mlp:
            inner = (nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
            self.mlp = nn.Sequential(nn.LayerNorm(dim) if norm else nn.Identity(), *inner)

    def forward(self, stream: Tensor, patterns: list[Tensor] | None) -> Tensor:
        inputs = self.norm(stream)
        pattern = self.attention.pattern(inputs)
        if patterns is not None:
            patterns.append(pattern)
        stream = stream + self.attention(inputs, pattern)
        return stream if self.mlp is None else stream + self.mlp(stream)


class CausalAttention(nn.Module):
    """Causal attention with explicit weights and a learned bias for ``reach`` distances."""

    def __init__(self, dim: int, heads: int, reach: int | None) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (
            nn.Linear(dim, dim, bias=False) for _ in range(4)
        )
        self.distance_bias = nn.Parameter(torch.zeros(heads, reach)) if reach else None

    def pattern(self, inputs: Tensor) -> Tensor:
        """Compute attention weights ``(batch, heads, length, length)``."""
        length = inputs.shape[1]
        query, key = self._by_head(self.q_proj(inputs)), self._by_head(self.k_proj(inputs))
        logits = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
        place = torch.arange(length, device=inputs.device)
        distance = place[:, None] - place
        if self.distance_bias is not None:
            logits = logits + self.distance_bias[:, distance.clamp(min=0)]
        return logits.masked_fill(distance < 0, -torch.inf).softmax(dim=-1)

    def forward(self, inputs: Tensor, pattern: Tensor) -> Tensor:
        """Compute the output of the heads, ``(batch, length, dim)``."""
        values = pattern @ self._by_head(self.v_proj(inputs))
        return self.o_proj(values.transpose(1, 2).flatten(2))

    def _by_head(self, features: Tensor) -> Tensor:
        return features.unflatten(-1, (self.heads, -1)).transpose(1, 2)
