"""Scores the attention heads of a transformer during training."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.nn.functional import cross_entropy

from lightning_plugins.callbacks.attention_access import AttentionAccess
from lightning_plugins.callbacks.extra_passes import while_measuring
from lightning_plugins.callbacks.measured_curves import log_measurement, log_picture
from lightning_plugins.callbacks.plugin_callback import PluginCallback
from lightning_plugins.callbacks.replica_check import add_replica_check
from lightning_plugins.callbacks.unsupported_strategies import refuse_sharded
from lightning_plugins.nn.induction.head_patterns import (
    PATTERNS,
    Rows,
    attention_share,
    copying_score,
    repeated_probe,
)
from lightning_plugins.reports.run_pictures import heat_map_picture

Scores = dict[str, list[list[float]]]
"""Score -> layer -> head."""


class HeadScores(PluginCallback):
    """Scores every attention head during training, and draws a heat map over heads and steps.

    The scores are measured in evaluation mode on sequences of random tokens that occur twice; the
    seed fixes them. Supported are models of transformers, ``torch.nn.MultiheadAttention``, and all
    modules with a method ``attention_patterns(tokens)`` that returns ``(batch, heads, length,
    length)`` for each layer. The run itself is, bit for bit, the run without the callback.

    =================== =========================================================================
    score of a head     definition
    =================== =========================================================================
    ``previous_token``  attention on the previous token
    ``duplicate_token`` attention on earlier copies of the token
    ``induction``       attention on the tokens after earlier copies of the token
    ``copying``         ``Re Σλ / Σ|λ|`` of the eigenvalues of ``W_E W_V W_O W_U``; weights only
    ``ablation``        rise of the cross-entropy on the second copy, in nats, without the head;
                        a causal check of the other scores
    =================== =========================================================================

    The first three are shares of attention in [0, 1], as in Olsson et al. (*In-context Learning
    and Induction Heads*, 2022) and TransformerLens. ``copying`` needs projections of a known layout
    (GPT-2, LLaMA and similar models, PyTorch's own). Other models of transformers are ablated by
    hooks on the last linear layer of each attention module. What cannot be measured is omitted with
    a warning.

    Logs the largest value over all heads as ``heads/induction`` and so on, and
    ``heads/in_context``: the cross-entropy on the second copy minus that on the first, in nats. It
    is negative if the model learns in context. All values are in ``steps`` and ``scores``. The
    picture ``head_scores`` is sent to the loggers that accept pictures, or else written to the log
    folder.

    It measures before the first step, every ``every_n_steps``, and at the end. A measurement costs
    two forward passes over the probe, and with ``ablation`` one more per head.

    Args:
        every_n_steps: The number of optimizer steps between measurements.
        period: The number of tokens of one copy; two copies must fit into the network's context.
        num_sequences: The number of sequences of the probe.
        vocab_size: The number of tokens from which the probe is drawn; None reads it from the
            network.
        ablation: Whether heads are removed one by one.
        rows: ``matching`` is the share among tokens that have something to attend to, 1 for a
            perfect head; ``all`` is the share among all tokens, as in TransformerLens.
        seed: The seed of the probe.

    Raises:
        ValueError: An argument is outside its range, or the probe is longer than the network's
            context.
        MisconfigurationException: The module has no attention, its attention returns no weights, or
            the strategy is FSDP (version 1) or DeepSpeed.

    Example::

        trainer = Trainer(max_steps=2000, callbacks=[HeadScores(every_n_steps=20)])
    """

    results = ("steps", "scores", "layers")

    def __init__(
        self,
        every_n_steps: int = 100,
        period: int = 16,
        num_sequences: int = 8,
        vocab_size: int | None = None,
        ablation: bool = True,
        rows: Rows = "matching",
        seed: int = 0,
    ) -> None:
        at_least = {
            "every_n_steps": (every_n_steps, 1),
            "period": (period, 2),
            "num_sequences": (num_sequences, 1),
        }
        for name, (value, least) in at_least.items():
            if value < least:
                raise ValueError(f"{name}={value}: expected at least {least}")
        if vocab_size is not None and vocab_size < 2:
            raise ValueError(f"vocab_size={vocab_size}: expected at least 2 tokens")
        if rows not in ("matching", "all"):
            raise ValueError(f"rows={rows!r}: expected 'matching' or 'all'")
        self.every_n_steps = every_n_steps
        self.period = period
        self.num_sequences = num_sequences
        self.vocab_size = vocab_size
        self.ablation = ablation
        self.rows: Rows = rows
        self.seed = seed
        self.steps: list[int] = []
        self.scores: list[Scores] = []
        self.layers: list[int] = []

    def check(self, trainer: Trainer) -> None:
        """Refuse an unsupported Trainer before data is prepared."""
        refuse_sharded(trainer, self, supports=("fsdp2", "tp"))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse unsupported configurations, and discard the scores of an earlier run."""
        self.check(trainer)
        if stage == "fit":
            add_replica_check(trainer)
        if stage == "fit" and trainer.global_step == 0:
            self.steps, self.scores = [], []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Locate the attention, so that errors appear before training, and score the heads."""
        access = AttentionAccess(pl_module)
        self._refuse_probe(access)
        heads = self._heads(access, pl_module) if self.ablation else []
        if self.ablation and access.matrices(heads) is None:
            tokens = self._probe(access)[:1].to(pl_module.device)
            with torch.no_grad(), while_measuring(pl_module, self.seed):
                projections = access.output_projections(heads, tokens)
            omitted = "'copying' and 'ablation' are" if projections is None else "'copying' is"
            rank_zero_warn(
                f"the heads of {type(access.network).__name__} have no projections of a known "
                f"layout: {omitted} omitted"
            )
        if trainer.global_step == 0:
            self._record(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measure, if the step is due."""
        step = trainer.global_step
        if step % self.every_n_steps == 0 and self.steps[-1:] != [step]:
            self._record(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure at the end of the run, and draw the heat map."""
        if self.steps[-1:] != [trainer.global_step]:
            self._record(trainer, pl_module)
        log_picture(trainer, "head_scores", lambda: heat_map_picture(self.steps, self.curves()))

    def curves(self) -> dict[str, dict[str, list[float]]]:
        """Return score -> head -> one value per measured step; head ``1.0`` is layer 1, head 0.

        Layers have the model's numbers, also in a hybrid with attention in some layers only.
        """
        names = [name for name in self.scores[0] if name != "in_context"]
        return {
            name: {
                f"{self._number(layer)}.{head}": [s[name][layer][head] for s in self.scores]
                for layer, heads in enumerate(self.scores[0][name])
                for head in range(len(heads))
            }
            for name in names
        }

    def _number(self, layer: int) -> int:
        return self.layers[layer] if layer < len(self.layers) else layer

    def measure(self, pl_module: LightningModule) -> Scores:
        """Score the heads of a module; works also outside of a run.

        Returns:
            Score -> layer -> head, and ``in_context`` -> one layer with one number.

        Raises:
            MisconfigurationException: The module has no attention, or its attention returns no
                weights.
        """
        access = AttentionAccess(pl_module)
        tokens = self._probe(access).to(pl_module.device)
        with torch.no_grad(), while_measuring(pl_module, self.seed):
            patterns = [pattern.float() for pattern in access.patterns(tokens)]
            self.layers = access.layer_numbers(len(patterns))
            scores: Scores = {
                name: [
                    attention_share(attention, pattern_of(tokens), self.rows).tolist()
                    for attention in patterns
                ]
                for name, pattern_of in PATTERNS.items()
            }
            first, second = self._losses(access.logits(tokens), tokens)
            scores |= self._scores_of_weights(access, patterns, tokens, second)
        return scores | {"in_context": [[second - first]]}

    def state_dict(self) -> dict[str, Any]:
        """Return the scores, so that a resumed run draws them from the first step."""
        return {
            "steps": list(self.steps),
            "scores": list(self.scores),
            "layers": list(self.layers),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the scores of a checkpoint."""
        self.steps = list(state_dict["steps"])
        self.scores = list(state_dict["scores"])
        self.layers = list(state_dict.get("layers", []))

    def _scores_of_weights(
        self, access: AttentionAccess, patterns: list[Tensor], tokens: Tensor, loss: float
    ) -> Scores:
        heads = [pattern.shape[1] for pattern in patterns]
        matrices = access.matrices(heads)
        scores: Scores = {}
        if matrices is not None and (vocabulary := access.vocabulary()) is not None:
            scores["copying"] = [
                copying_score(layer.value, layer.output, *vocabulary).tolist() for layer in matrices
            ]
        if not self.ablation:
            return scores
        passes: list[list[Callable[[], Tensor]]]  # one pass at a time: logits need much memory
        if matrices is not None:
            passes = [
                [
                    partial(access.logits_without_weights, tokens, layer, head)
                    for head in range(len(layer.output))
                ]
                for layer in matrices
            ]
        else:
            projections = access.output_projections(heads, tokens[:1])
            if projections is None:
                return scores
            passes = [
                [
                    partial(access.logits_without_head, tokens, part, head, count)
                    for head in range(count)
                ]
                for part, count in zip(projections, heads, strict=True)
            ]
        scores["ablation"] = [
            [self._losses(logits(), tokens)[1] - loss for logits in layer] for layer in passes
        ]
        return scores

    def _losses(self, logits: Tensor, tokens: Tensor) -> tuple[float, float]:
        """Return the cross-entropy in nats on both copies; the second without its first token."""
        losses = cross_entropy(
            logits[:, :-1].float().transpose(1, 2), tokens[:, 1:], reduction="none"
        )
        first, second = losses[:, : self.period - 1], losses[:, self.period :]
        return first.mean().item(), second.mean().item()

    def _record(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Every rank measures, because the passes of a sharded network need all of them.
        scores: Scores = trainer.strategy.broadcast(self.measure(pl_module))
        self.steps.append(trainer.global_step)
        self.scores.append(scores)
        metrics = {
            f"heads/{name}": max(value for layer in layers for value in layer)
            for name, layers in scores.items()
        }
        log_measurement(trainer, metrics)

    def _heads(self, access: AttentionAccess, pl_module: LightningModule) -> list[int]:
        tokens = self._probe(access).to(pl_module.device)
        with torch.no_grad(), while_measuring(pl_module, self.seed):
            found = [pattern.shape[1] for pattern in access.patterns(tokens[:1])]
        if not found:
            raise MisconfigurationException(
                f"{type(access.network).__name__} has no attention layer that returns its weights"
            )
        return found

    def _refuse_probe(self, access: AttentionAccess) -> None:
        longest = access.max_length
        if longest is not None and 2 * self.period > longest:
            raise ValueError(
                f"period={self.period}: two copies are longer than the {longest} tokens of "
                f"{type(access.network).__name__}; reduce it to {longest // 2}"
            )

    def _probe(self, access: AttentionAccess) -> Tensor:
        vocab_size = self.vocab_size or access.vocab_size
        if vocab_size is None:
            raise MisconfigurationException(
                f"{type(access.network).__name__} has no vocab_size: set vocab_size of HeadScores"
            )
        return repeated_probe(self.num_sequences, self.period, vocab_size, self.seed)
