"""The LightningModule that captions the change between two images."""

import math
import re
from pathlib import Path
from typing import Any, ClassVar, TypedDict, get_args

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.optim import Optimizer

from lightning_plugins._lightning_compat.processes import model_parallel_sizes
from lightning_plugins.checkpoints import CheckedLoading, CheckpointStrings
from lightning_plugins.datamodules.change_captioning.image_pairs import resized
from lightning_plugins.litmodels.change_captioning.network import (
    Difference,
    build_network,
    merged_weights,
    with_lora,
)
from lightning_plugins.litmodels.change_captioning.prompt import (
    QUESTION,
    LossOn,
    Prompt,
    QwenTokenizer,
    Tokenizer,
)
from lightning_plugins.litmodels.change_captioning.released_checkpoints import load_released
from lightning_plugins.litmodels.change_captioning.sizes import SIZES, Size
from lightning_plugins.litmodels.change_captioning.tile_pretraining import (
    pretrained_on_tiles,
    words_of,
)
from lightning_plugins.litmodels.change_captioning.word_tokenizer import WordTokenizer
from lightning_plugins.metrics import ChangeCaptionScores
from lightning_plugins.nn.parallel import (
    load_from_rank_0,
    parallel_network,
    refuse_tensor_parallel,
)
from lightning_plugins.optimizers import configure_optimizers
from lightning_plugins.optimizers.gradient_clipping import clip_gradients

_TILES = "tiles"


class PairBatch(TypedDict, total=False):
    """A batch of image pairs.

    ``images`` ``(batch, 2, 3, height, width)`` in [0, 1] and ``id`` are always present; training
    requires ``caption``, the target; validation and test require ``references`` and use
    ``changed``, None for pairs without this information.
    """

    images: Tensor
    id: list[str]
    caption: list[str]
    references: list[list[str]]
    changed: list[bool | None]


class ChangeCaptioner(CheckedLoading, LightningModule):
    """Trains LLaVA-OneVision with a difference-aware module to caption changes.

    Batches are :class:`PairBatch`; images of another size are resized to the network's. The prompt
    is the same question for every pair, and the loss is the cross-entropy of the target tokens,
    whose logits alone are computed.

    Logged: ``train/loss`` (nats per token), ``val/loss`` (of the first reference) and, over the
    whole validation part, all scores of :class:`~lightning_plugins.metrics.ChangeCaptionScores` of
    the generated captions, as ``val/s_m``, ``val/bleu_4`` and so on. The same scores are logged for
    ``test``. Select checkpoints by ``val/s_m``; the authors of CCExpert selected theirs on the test
    part. ``predict_step`` returns a list of ``{"id", "caption", "score"}``, see
    :meth:`generate_with_scores`.

    Source: Wang et al., CCExpert, arXiv 2411.11360.

    Args:
        size: ``tiny`` is trained from random weights, with a word tokenizer that is learned from
            the DataModule's ``training_captions()``. ``0.5b`` and ``7b`` require ``pretrained``.
        difference: ``integrate``, ``alone`` (a control with the same parameters) or ``none``, as
            in :func:`~lightning_plugins.litmodels.change_captioning.network.build_network`.
        zero_gate: Start as plain LLaVA-OneVision; False is the released architecture.
        pretrained: Folder of a downloaded checkpoint of LLaVA-OneVision (with ``zero_gate=True``)
            or of CCExpert (with False), including its tokenizer. It is read whenever the network
            is built, even if a Lightning checkpoint then replaces the weights. For ``tiny``,
            ``tiles`` runs
            :func:`~lightning_plugins.litmodels.change_captioning.tile_pretraining.pretrained_on_tiles`
            (one minute) before the first fit and keeps the result in the user's cache.
        lora_rank: Rank of low-rank updates (peft) of the language model's query and value
            projections; with them, only the projector and the difference module are trained, and
            with ``pretrained``, a checkpoint contains only trained weights. 0 trains everything.
        vocab_size: Tokens of the tiny network, with four special ones; None for 256. A warning
            gives the number of words that do not fit.
        loss_on: Tokens of the loss: ``conversation`` as the authors' code, or ``answer``; see
            :class:`~lightning_plugins.litmodels.change_captioning.prompt.Prompt`.
        gradient_checkpointing: Recompute the activations of the vision tower, the difference module
            and the language model, layer by layer, in the backward pass.
        max_new_tokens: Maximum number of tokens of a caption.
        num_beams: Number of beams; 1 is greedy decoding.
        constant: Sentence of a constant captioner whose scores are also logged.
        java_meteor: Also compute the original METEOR 1.5.
        optimizer: Factory of the optimizer from the named parameters.
        lr_scheduler: Factory of the learning rate scheduler from the optimizer.

    Raises:
        ValueError: An argument is outside its range, the data has no captions to learn words from,
            or a tiny network generates captions before it was trained.
        ImportError: transformers 5 is not installed, or peft for ``lora_rank``.

    Example::

        model = ChangeCaptioner(optimizer=partial(torch.optim.AdamW, lr=1e-3))
        Trainer(max_epochs=20).fit(model, datamodule=ChangeCaptionDataModule())
    """

    _known_folders: ClassVar[set[str]] = {_TILES}
    checkpoint_strings: ClassVar[CheckpointStrings] = {
        "pretrained": _known_folders,
        "constant": re.compile(r"[\w ,.;'!?-]{0,200}"),
    }

    def __init__(
        self,
        size: Size = "tiny",
        difference: Difference = "integrate",
        zero_gate: bool = True,
        pretrained: str | None = None,
        lora_rank: int = 0,
        vocab_size: int | None = None,
        loss_on: LossOn = "conversation",
        gradient_checkpointing: bool = False,
        max_new_tokens: int = 40,
        num_beams: int = 1,
        constant: str | None = "the scene is the same as before",
        java_meteor: bool = False,
        optimizer: OptimizerCallable = lambda p: torch.optim.AdamW(p, lr=1e-5, weight_decay=0.0),
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__()
        if size not in SIZES:
            raise ValueError(f"size={size!r}: expected one of {', '.join(map(repr, SIZES))}")
        for name, value in {"max_new_tokens": max_new_tokens, "num_beams": num_beams}.items():
            if value < 1:
                raise ValueError(f"{name}={value}: expected at least 1")
        if lora_rank < 0:
            raise ValueError(f"lora_rank={lora_rank}: expected 0 or more")
        if size == "tiny" and pretrained not in (None, _TILES):
            raise ValueError(f"pretrained={pretrained!r}: expected None or 'tiles' for size='tiny'")
        if vocab_size is not None and (size != "tiny" or vocab_size < 8):
            raise ValueError(
                f"vocab_size={vocab_size}: expected None, or at least 8 with size='tiny'; "
                "published sizes have the tokens of their checkpoint"
            )
        if loss_on not in get_args(LossOn):
            raise ValueError(f"loss_on={loss_on!r}: expected 'conversation' or 'answer'")
        if lora_rank and pretrained == _TILES:
            raise ValueError(f"lora_rank={lora_rank}: expected 0 with pretrained='tiles'")
        if pretrained is not None:
            # The user named this folder, or the check of load_from_checkpoint passed, so a
            # checkpoint that is loaded later in this process may name it too.
            self._known_folders.add(pretrained)
        self.save_hyperparameters(ignore=["optimizer", "lr_scheduler"])
        self.network: Any = None
        self.val_scores = ChangeCaptionScores(java_meteor, constant)
        self.test_scores = ChangeCaptionScores(java_meteor, constant)
        self._tokenizer: Tokenizer | None = None
        self._optimizer = optimizer
        self._lr_scheduler = lr_scheduler

    @property
    def image_size(self) -> int:
        """Height and width of the network's images; others are resized."""
        return SIZES[self.hparams["size"]].vision["image_size"]

    def check_trainer(self, trainer: Trainer) -> None:
        """Refuse an unsupported tensor parallelism before data is prepared."""
        refuse_tensor_parallel(self._make_network, model_parallel_sizes(trainer)["tp"])

    def configure_callbacks(self) -> list[Callback]:
        """Refuse an unsupported Trainer before it prepares data; add no callback."""
        self.check_trainer(self.trainer)
        return []

    def setup(self, stage: str) -> None:
        """Read the tokenizer of a published checkpoint."""
        if self.hparams["size"] != "tiny" and self._tokenizer is None:
            self._tokenizer = self._published_tokenizer()

    def configure_model(self) -> None:
        """Build the network, once, and load its published weights."""
        if self.network is not None:
            return
        if self.device_mesh is None:
            self.network = self._make_network()
        else:
            device = self.trainer.strategy.root_device
            self.network = parallel_network(self._make_network, self.device_mesh, device)

    def _make_network(self) -> Any:
        options = self.hparams
        network = build_network(
            options["size"], options["difference"], options["zero_gate"], options["vocab_size"]
        )
        # Under ModelParallelStrategy rank 0 reads the weights; the others have none yet.
        is_meta = next(network.parameters()).is_meta
        if options["pretrained"] not in (None, _TILES) and not is_meta:
            missing = load_released(network, options["pretrained"])
            rank_zero_info(
                f"loaded {options['pretrained']}; {len(missing)} weights are not in it and keep "
                "their initial values"
            )
        if options["gradient_checkpointing"]:
            network.gradient_checkpointing_enable({"use_reentrant": False})
        return with_lora(network, options["lora_rank"]) if options["lora_rank"] else network

    def on_fit_start(self) -> None:
        """Load the pre-trained weights of a tiny network and learn its words.

        This runs after a checkpoint was restored, which contains both already.
        """
        if self._tokenizer is not None:
            return
        known: list[str] = []
        if self.hparams["pretrained"] == _TILES:
            if self.trainer.is_global_zero:
                pretrained_on_tiles()
            self.trainer.strategy.barrier("pretrained_on_tiles")
            folder = pretrained_on_tiles()
            self._load_pretrained(folder)
            known = words_of(folder)
        self._tokenizer = self._learned_words(known)

    def loss(self, batch: PairBatch, captions: list[str]) -> Tensor:
        """Return the mean cross-entropy in nats per token of ``captions``, one for each pair."""
        answers = self._prompt().with_answers(captions, self.device)
        return self.network(pixel_values=self._pixels(batch), **answers).loss

    def generate(self, batch: PairBatch) -> list[str]:
        """Generate a caption for each pair."""
        answers, _ = self._generated(batch)
        return [self._prompt().tokenizer.decode(answer) for answer in answers.tolist()]

    @torch.no_grad()
    def generate_with_scores(self, batch: PairBatch) -> list[tuple[str, float]]:
        """Generate a caption for each pair, with its score.

        The score is the geometric mean of the probabilities of the caption's tokens, in (0, 1], end
        included. It is not calibrated.
        """
        answers, found = self._generated(batch, output_scores=True, return_dict_in_generate=True)
        beams = getattr(found, "beam_indices", None)
        logs = self.network.compute_transition_scores(
            found.sequences, found.scores, beams, normalize_logits=beams is None
        )
        tokenizer = self._prompt().tokenizer
        # Tokens after the first end are padding.
        is_used = (answers == tokenizer.end_id).cumsum(1).cumsum(1) <= 1
        scores = (logs.where(is_used, 0).sum(1) / is_used.sum(1)).exp().tolist()
        return [(tokenizer.decode(a), s) for a, s in zip(answers.tolist(), scores, strict=True)]

    def _generated(self, batch: PairBatch, **extra: Any) -> tuple[Tensor, Any]:
        prompt, options = self._prompt(), self.hparams
        questions = prompt.questions(len(batch["images"]), self.device)
        found = self.network.generate(
            input_ids=questions,
            attention_mask=torch.ones_like(questions),
            pixel_values=self._pixels(batch),
            max_new_tokens=options["max_new_tokens"],
            num_beams=options["num_beams"],
            do_sample=False,
            pad_token_id=prompt.tokenizer.pad_id,
            # Ranks that share one network stop together.
            synced_gpus=self.device_mesh is not None,
            eos_token_id=prompt.tokenizer.end_id,
            **extra,
        )
        return (found.sequences if extra else found)[:, questions.shape[1] :], found

    @torch.no_grad()
    def difference_maps(self, batch: PairBatch) -> Tensor:
        """Compute the response of the difference module to the change, for each patch.

        The module's output for the pair minus its output for the first image paired with itself:
        it is 0 if both images are equal. Without a module it is the distance between the vision
        tower's last features.

        Returns:
            Euclidean norms ``(batch, rows, columns)``, one for each patch.
        """
        unwrapped = self.network.get_base_model() if self.hparams["lora_rank"] else self.network
        pixels = self._pixels(batch)
        before, after, _ = unwrapped.model.pair_features(pixels)
        same, again, _ = unwrapped.model.pair_features(pixels[:, :1].expand_as(pixels))
        response = (after - before) - (again - same)
        distances = torch.linalg.vector_norm(response.float(), dim=-1)
        side = math.isqrt(distances.shape[1])
        return distances.unflatten(1, (side, side))

    def training_step(self, batch: PairBatch, batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        loss = self.loss(batch, batch["caption"])
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch["id"]))
        return loss

    def validation_step(self, batch: PairBatch, batch_idx: int) -> None:
        """Generate and score the captions of a validation batch."""
        self._evaluate("val", self.val_scores, batch)

    def test_step(self, batch: PairBatch, batch_idx: int) -> None:
        """Generate and score the captions of a test batch."""
        self._evaluate("test", self.test_scores, batch)

    def predict_step(self, batch: PairBatch, batch_idx: int) -> list[dict[str, Any]]:
        """Return ``{"id", "caption", "score"}`` for each pair."""
        found = zip(batch["id"], self.generate_with_scores(batch), strict=True)
        return [
            {"id": name, "caption": caption, "score": score} for name, (caption, score) in found
        ]

    def on_validation_epoch_end(self) -> None:
        """Log the scores of the whole validation part."""
        self._log_scores("val", self.val_scores)

    def on_test_epoch_end(self) -> None:
        """Log the scores of the whole test part."""
        self._log_scores("test", self.test_scores)

    def configure_optimizers(self) -> Any:
        """Return the optimizer, and its scheduler with the right interval."""
        return configure_optimizers(self, self._optimizer, self._lr_scheduler)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as the Trainer asks, also under ``ModelParallelStrategy``."""
        clip_gradients(self, optimizer, gradient_clip_val, gradient_clip_algorithm)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the words of the tokenizer, and leave out weights that ``pretrained`` contains."""
        if isinstance(self._tokenizer, WordTokenizer):
            checkpoint["words"] = self._tokenizer.words
        if self._frozen_weights_are_published():
            weights = checkpoint["state_dict"]
            checkpoint["state_dict"] = {n: w for n, w in weights.items() if _is_of_adapter(n)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the words of the tokenizer, and complete the weights."""
        if "words" in checkpoint:
            self._tokenizer = WordTokenizer(checkpoint["words"])
        if self._frozen_weights_are_published() and self.network is not None:
            own = self.state_dict()
            frozen = {name: own[name] for name in own if not _is_of_adapter(name)}
            checkpoint["state_dict"] = frozen | checkpoint["state_dict"]

    def export(self, folder: str | Path) -> None:
        """Write a folder that ``pretrained`` and transformers can read, with its tokenizer.

        Low-rank updates are added to the weights. transformers reads all weights except those of
        the difference module, which it does not have.

        Raises:
            ValueError: The network is not built, or has no tokenizer yet.
            MisconfigurationException: The parameters are sharded over several processes.
        """
        if self.network is None:
            raise ValueError(f"export to {str(folder)!r}: there is no network; train or load first")
        if self.device_mesh is not None:
            raise MisconfigurationException(
                "export does not support sharded parameters: load the checkpoint in one process"
            )
        network, weights = self.network, None
        if self.hparams["lora_rank"]:
            network, weights = network.get_base_model(), merged_weights(network)
        tokenizer = self._prompt().tokenizer
        network.save_pretrained(folder, state_dict=weights)
        tokenizer.save(folder)

    def _frozen_weights_are_published(self) -> bool:
        return bool(self.hparams["lora_rank"]) and self.hparams["pretrained"] is not None

    def _published_tokenizer(self) -> QwenTokenizer:
        size, pretrained = self.hparams["size"], self.hparams["pretrained"]
        if pretrained is None:
            raise ValueError(
                f"pretrained=None: size={size!r} requires the folder of a downloaded checkpoint "
                "with its weights and tokenizer"
            )
        return QwenTokenizer(pretrained)

    def _load_pretrained(self, folder: Any) -> None:
        if self.device_mesh is None:
            load_released(self.network, folder)
            return
        whole = self._make_network() if self.trainer.is_global_zero else None
        if whole is not None:
            load_released(whole, folder)
        load_from_rank_0(self.network, whole)

    def _learned_words(self, known: list[str]) -> WordTokenizer:
        datamodule: Any = getattr(self.trainer, "datamodule", None)
        if not hasattr(datamodule, "training_captions"):
            raise ValueError(
                "size='tiny' learns its words from the DataModule's training_captions(), which "
                f"{type(datamodule).__name__} does not have; use ChangeCaptionDataModule, or "
                "restore a trained checkpoint"
            )
        vocab_size = self.hparams["vocab_size"] or SIZES["tiny"].text["vocab_size"]
        texts = [QUESTION.replace("<image>", ""), *datamodule.training_captions()]
        return WordTokenizer.learned(texts, vocab_size, known)

    def _prompt(self) -> Prompt:
        self.setup("")  # not called yet without a Trainer
        if self._tokenizer is None:
            raise ValueError(
                "size='tiny' has no tokenizer before it is trained: load the checkpoint of a fit, "
                "for example with --ckpt_path=last.ckpt"
            )
        size = SIZES[self.hparams["size"]]
        vision = size.vision
        tokens_per_image = (vision["image_size"] // vision["patch_size"]) ** 2
        loss_on = self.hparams["loss_on"]
        return Prompt(self._tokenizer, size.image_token_id, tokens_per_image, loss_on)

    def _pixels(self, batch: PairBatch) -> Tensor:
        return resized(batch["images"], (self.image_size, self.image_size)) * 2 - 1

    def _evaluate(self, stage: str, scores: ChangeCaptionScores, batch: PairBatch) -> None:
        first = [sentences[0] for sentences in batch["references"]]
        size = len(batch["id"])
        self.log(f"{stage}/loss", self.loss(batch, first), sync_dist=True, batch_size=size)
        scores.update(self.generate(batch), batch["references"], batch["id"], batch.get("changed"))

    def _log_scores(self, stage: str, scores: ChangeCaptionScores) -> None:
        found = scores.compute()
        scores.reset()
        numbers = {f"{stage}/{k}": float(v) for k, v in found.items() if not isinstance(v, str)}
        # compute() gathered all ranks, so every rank has the same scores.
        self.log_dict(numbers, rank_zero_only=False, sync_dist=False)


def _is_of_adapter(name: str) -> bool:
    return "lora_" in name or ".modules_to_save." in name
