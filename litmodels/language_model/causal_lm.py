"""Pre-training of a causal language model of the transformers library."""

import math
import time
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lightning_plugins._lightning_compat import logs_at_this_step, steps_the_optimizer
from lightning_plugins.litmodels.language_model.network import (
    Batch,
    inputs_and_targets,
    keeps_documents_apart,
    scale_residual_projections,
)
from lightning_plugins.nn.moe.routing import GateWeighting, Routing, route
from lightning_plugins.optimizers import configure_optimizers
from lightning_plugins.optional_packages import requires

# Types without ``norm_topk_prob`` whose gates make the weights of the chosen experts sum to 1.
_ALWAYS_RENORMALISED = ("gpt_oss", "mixtral")


class CausalLM(LightningModule):
    """Trains any causal architecture of transformers from scratch on windows of tokens.

    Batches are int64 ``(batch, context_length + 1)``; every token but the first is a target. A
    DataModule with ``mask_documents`` gives dictionaries instead, by which documents in a window do
    not see each other. The network is made in ``configure_model``, as sharding strategies want it.

    Logged: ``train/loss`` (nats a token, without the router's auxiliary loss), ``val/loss``,
    ``val/perplexity``; the same for ``test``; ``train/tokens_per_second`` of this process at the
    steps that are logged. For mixtures of experts, which ``RoutingStats`` can watch, also
    ``train/auxiliary_loss``, which is added to what is optimised, and ``train/router_max_load``:
    the largest share of tokens that an expert of a layer is the first choice of, times the number
    of experts; 1 is balance.

    With a DataModule that knows its text, as ``TokenDataModule`` does, also ``val/bits_per_byte``
    beside ``val/bits_per_byte_xz``, what ``xz -9e`` makes of the validation text without having
    seen the training text, and ``val/bits_per_token`` beside ``val/bits_per_token_unigram``, the
    entropy of the validation tokens' frequencies. The four are said at the end of a fit.

    Args:
        architecture: a model type of transformers: ``llama``, ``gpt2``, ``qwen2_moe`` and others.
        vocab_size: tokens; compared with the DataModule's where it has one.
        context_length: tokens the network sees.
        config: further arguments of the architecture's configuration, by its own names, such as
            ``hidden_size``, ``num_hidden_layers``, ``num_attention_heads``.
        initializer_range: standard deviation of the initial weights.
        residual_scaling: divide the initial weights of the projections that add to the residual
            stream by ``sqrt(2 * layers)`` (Radford et al., GPT-2, 2019, section 2.3). Found by
            name; where attention or the feed-forward part has no known one, a warning says so.
        activation_checkpointing: compute activations again in the backward pass.
        compile: compile the network with ``torch.compile``.
        optimizer: builds the optimizer from named parameters.
        lr_scheduler: builds the schedule from the optimizer.

    Raises:
        ValueError: an argument outside its range, data with more tokens than ``vocab_size``, or
            masked documents for an architecture that lets them see each other.
        ImportError: without transformers.

    Example::

        model = CausalLM("llama", config={"hidden_size": 64, "num_hidden_layers": 2})
        Trainer(max_steps=1000).fit(model, datamodule=TokenDataModule())
    """

    def __init__(
        self,
        architecture: str = "llama",
        vocab_size: int = 256,
        context_length: int = 128,
        config: dict[str, Any] | None = None,
        initializer_range: float = 0.02,
        residual_scaling: bool = True,
        activation_checkpointing: bool = False,
        compile: bool = False,
        optimizer: OptimizerCallable = lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.1),
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__()
        for name, value in {"vocab_size": vocab_size, "context_length": context_length}.items():
            if value < 2:
                raise ValueError(f"{name}={value}: expected at least 2")
        if not initializer_range > 0:
            raise ValueError(f"initializer_range={initializer_range}: expected more than 0")
        self.save_hyperparameters(ignore=["optimizer", "lr_scheduler"])
        self.vocab_size = vocab_size
        self.config = _configuration(
            architecture,
            {
                "vocab_size": vocab_size,
                "max_position_embeddings": context_length,
                "initializer_range": initializer_range,
                "use_cache": False,
                **(config or {}),
            },
        )
        self.network: nn.Module | None = None
        self._mask_documents = False
        self._residual_scaling = residual_scaling
        self._activation_checkpointing = activation_checkpointing
        self._compile = compile
        self._optimizer = optimizer
        self._lr_scheduler = lr_scheduler
        self._tokens_seen, self._clock = 0, 0.0

    def configure_model(self) -> None:
        """Make the network, once."""
        if self.network is not None:
            return
        from transformers import AutoModelForCausalLM

        network = AutoModelForCausalLM.from_config(self.config)
        if self._residual_scaling:
            scale_residual_projections(network, self.config)
        if self._mask_documents:
            _refuse_leaks(network)
        if self._activation_checkpointing:
            network.gradient_checkpointing_enable()
        if self._compile:
            network.compile()
        self.network = network

    def setup(self, stage: str) -> None:
        """Refuse data with tokens that the network does not know."""
        datamodule = getattr(self.trainer, "datamodule", None)
        vocab_size = getattr(datamodule, "vocab_size", None)
        if vocab_size is not None and vocab_size > self.vocab_size:
            raise ValueError(
                f"vocab_size={self.vocab_size}: {type(datamodule).__name__} has {vocab_size} "
                f"tokens; set the model's vocab_size to {vocab_size} or more"
            )
        self._mask_documents = getattr(datamodule, "mask_documents", False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits ``(batch, length, vocab_size)`` of tokens ``(batch, length)``."""
        assert self.network is not None, "call configure_model() first, as a Trainer does"
        return self.network(tokens).logits

    def loss(self, batch: Batch) -> Tensor:
        """Mean cross-entropy in nats over the targets of a batch."""
        assert self.network is not None, "call configure_model() first, as a Trainer does"
        inputs, targets = inputs_and_targets(batch)
        return _cross_entropy(self.network(**inputs).logits, targets)

    def routings(self, batch: Batch) -> list[Routing]:
        """Where the gate of each layer with experts sends the tokens; ``RoutingStats`` asks it."""
        assert self.network is not None, "call configure_model() first, as a Trainer does"
        logits = getattr(self.network(**inputs_and_targets(batch)[0]), "router_logits", None) or ()
        renormalised = self.config.model_type in _ALWAYS_RENORMALISED or getattr(
            self.config, "norm_topk_prob", False
        )
        weighting: GateWeighting = "softmax_topk" if renormalised else "softmax_all"
        return [route(one, self.config.num_experts_per_tok, weighting) for one in logits]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of a batch, with the router's auxiliary loss where there is one."""
        assert self.network is not None
        inputs, targets = inputs_and_targets(batch)
        output = self.network(**inputs)
        loss = _cross_entropy(output.logits, targets)
        self.log("train/loss", loss, prog_bar=True)
        auxiliary = getattr(output, "aux_loss", None)
        # A configuration can have the option of a gate without a layer that has one.
        if auxiliary is None or not output.router_logits:
            return loss
        self.log("train/auxiliary_loss", auxiliary)
        self.log("train/router_max_load", _max_load(output.router_logits))
        return loss + self.config.router_aux_loss_coef * auxiliary

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log the throughput, once a logged step however many batches and passes it took."""
        self._tokens_seen += inputs_and_targets(batch)[1].numel()
        if not (steps_the_optimizer(self.trainer) and logs_at_this_step(self.trainer)):
            return
        now = time.monotonic()
        if self._clock:
            self.log("train/tokens_per_second", self._tokens_seen / (now - self._clock))
        self._tokens_seen, self._clock = 0, now

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the loss over the validation part."""
        self._evaluate("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the loss over the test part."""
        self._evaluate("test", batch)

    def on_validation_epoch_end(self) -> None:
        """Log what follows from the mean loss."""
        self._log_derived("val")
        self._tokens_seen, self._clock = 0, 0.0  # validation is no time of training

    def on_test_epoch_end(self) -> None:
        """Log what follows from the mean loss."""
        self._log_derived("test")

    def on_fit_end(self) -> None:
        """Say what a byte and a token cost this model, and what they cost without one."""
        found = self.trainer.callback_metrics
        if "val/bits_per_byte_xz" in found:
            rank_zero_info(
                f"validation: {found['val/bits_per_byte']:.3f} bits a byte (xz -9e: "
                f"{found['val/bits_per_byte_xz']:.3f}), {found['val/bits_per_token']:.3f} bits a "
                f"token (unigram entropy: {found['val/bits_per_token_unigram']:.3f})"
            )

    def configure_optimizers(self) -> Any:
        """The optimizer, and its schedule with the interval it counts in."""
        return configure_optimizers(self, self._optimizer, self._lr_scheduler)

    def _evaluate(self, stage: str, batch: Batch) -> None:
        weight = len(batch) if isinstance(batch, Tensor) else _num_targets(batch)
        self.log(
            f"{stage}/loss", self.loss(batch), batch_size=weight, sync_dist=True, prog_bar=True
        )

    def _log_derived(self, stage: str) -> None:
        loss = self.trainer.callback_metrics.get(f"{stage}/loss")
        if loss is None:
            return
        self.log(f"{stage}/perplexity", loss.exp())
        bits_per_token = loss / math.log(2)
        if (bytes_per_token := self._known_of_data("bytes_per_token", stage)) is not None:
            self.log(f"{stage}/bits_per_token", bits_per_token)
            self.log(f"{stage}/bits_per_byte", bits_per_token / bytes_per_token, prog_bar=True)
        if (unigram := self._known_of_data("unigram_bits_per_token", stage)) is not None:
            self.log(f"{stage}/bits_per_token_unigram", unigram)
        if (xz := self._known_of_data("xz_bits_per_byte", stage)) is not None:
            self.log(f"{stage}/bits_per_byte_xz", xz)

    def _known_of_data(self, attribute: str, part: str) -> float | None:
        return getattr(getattr(self.trainer, "datamodule", None), attribute, {}).get(part)


def _configuration(architecture: str, arguments: dict[str, Any]) -> Any:
    with requires("transformers", by="CausalLM", extra="text"):
        from transformers import AutoConfig
    config = AutoConfig.for_model(architecture, **arguments)
    # Without it the network gives no auxiliary loss. Not every mixture has "moe" in its type.
    if hasattr(config, "output_router_logits") and "output_router_logits" not in arguments:
        config.output_router_logits = True
    return config


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy(logits.float().flatten(0, 1), targets.flatten())


def _num_targets(batch: dict[str, Tensor]) -> int:
    return int((inputs_and_targets(batch)[1] >= 0).sum())


def _refuse_leaks(network: nn.Module) -> None:
    # Weights on the meta device, of sharding strategies, compute nothing to be tried on.
    if next(network.parameters()).is_meta or keeps_documents_apart(network):
        return
    raise ValueError(
        f"mask_documents=True: {type(network).__name__} of the installed transformers lets a token "
        "see the documents before its own; set mask_documents=False, or take another architecture, "
        "such as llama, gpt2 or qwen2_moe"
    )


@torch.no_grad()
def _max_load(router_logits: tuple[Tensor, ...]) -> Tensor:
    """Largest share of first choices in any layer, times the number of experts."""
    loads = []
    for logits in router_logits:
        chosen = logits.argmax(dim=-1)
        counts = torch.zeros(logits.shape[-1], device=logits.device)
        counts.scatter_add_(
            0, chosen.flatten(), torch.ones_like(chosen.flatten(), dtype=counts.dtype)
        )
        loads.append(counts.max() / chosen.numel() * logits.shape[-1])
    return torch.stack(loads).max()
