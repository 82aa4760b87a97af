"""Captions of what changed between two images, by a vision-language network."""

import math
from typing import Any, TypedDict

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.nn.functional import interpolate

from lightning_plugins.litmodels.change_captioning.network import (
    Difference,
    build_network,
    with_lora,
)
from lightning_plugins.litmodels.change_captioning.network_sizes import SIZES, Size
from lightning_plugins.litmodels.change_captioning.prompt import (
    QUESTION,
    Prompt,
    QwenTokenizer,
    Tokenizer,
)
from lightning_plugins.litmodels.change_captioning.released_checkpoints import load_released
from lightning_plugins.litmodels.change_captioning.tile_pretraining import (
    pretrained_on_tiles,
    words_of,
)
from lightning_plugins.litmodels.change_captioning.word_tokenizer import WordTokenizer
from lightning_plugins.metrics import ChangeCaptionScores
from lightning_plugins.optimizers import configure_optimizers

_TILES = "tiles"


class PairBatch(TypedDict, total=False):
    """A batch of image pairs.

    ``images`` ``(batch, 2, 3, height, width)`` in [0, 1] and ``id`` are always there; ``caption``
    in training, the one to learn; ``references`` and ``changed`` in validation and test.
    """

    images: Tensor
    id: list[str]
    caption: list[str]
    references: list[list[str]]
    changed: list[bool]


class ChangeCaptioner(LightningModule):
    """Trains LLaVA-OneVision with a difference-aware module to caption changes.

    Batches are :class:`PairBatch`; images of another size are resized to the network's. Each pair
    is asked one fixed question, and the loss is the cross-entropy of the answer's tokens alone.

    Logged: ``train/loss`` (nats a token) and ``val/loss`` (of the first reference); over the whole
    validation part all of :class:`~lightning_plugins.metrics.ChangeCaptionScores`, as ``val/s_m``,
    ``val/bleu_4`` and so on, of captions that are generated in batches; the same for ``test``.
    Choose checkpoints by ``val/s_m``: the authors of CCExpert chose theirs on the test part.
    ``predict_step`` gives a list of ``{"id", "caption"}``.

    Source: Wang et al., CCExpert, arXiv 2411.11360.

    Args:
        size: ``tiny``, which is trained from random weights with words as tokens that it learns
            from the DataModule's ``training_captions()``; or ``0.5b`` or ``7b``, which need
            ``pretrained``.
        difference: ``integrate``, ``alone`` (a control with the same parameters) or ``none``, as
            in :func:`~lightning_plugins.litmodels.change_captioning.network.build_network`.
        zero_gate: begin as plain LLaVA-OneVision; False is the released architecture.
        pretrained: folder of a downloaded checkpoint of LLaVA-OneVision (with ``zero_gate=True``)
            or of CCExpert (False), with its tokenizer. Read whenever the network is made, also
            where a checkpoint of Lightning replaces its weights then. For ``tiny``, ``tiles``: a
            minute of
            :func:`~lightning_plugins.litmodels.change_captioning.tile_pretraining.pretrained_on_tiles`
            before the first fit, kept in the user's cache.
        lora_rank: train low-rank changes of the language model's query and value projections
            (peft), the projector and the difference module, and nothing else; 0 trains everything.
        gradient_checkpointing: compute activations again in the backward pass.
        max_new_tokens: longest caption.
        num_beams: 1 is greedy.
        constant: sentence of the constant captioner whose scores are logged beside.
        java_meteor: also score with the original METEOR 1.5.
        optimizer: builds the optimizer from named parameters.
        lr_scheduler: builds the schedule from the optimizer.

    Raises:
        ValueError: an argument outside its range, data without captions to learn words from, or a
            tiny network that is asked for captions before it was trained.
        ImportError: without transformers 5, or without peft for ``lora_rank``.

    Example::

        model = ChangeCaptioner(optimizer=partial(torch.optim.AdamW, lr=1.5e-3))
        Trainer(max_epochs=20).fit(model, datamodule=ChangeCaptionDataModule())
    """

    def __init__(
        self,
        size: Size = "tiny",
        difference: Difference = "integrate",
        zero_gate: bool = True,
        pretrained: str | None = None,
        lora_rank: int = 0,
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
        if lora_rank and pretrained == _TILES:
            raise ValueError(f"lora_rank={lora_rank}: expected 0 with pretrained='tiles'")
        self.save_hyperparameters(ignore=["optimizer", "lr_scheduler"])
        self.network: Any = None
        self.val_scores = ChangeCaptionScores(java_meteor, constant)
        self.test_scores = ChangeCaptionScores(java_meteor, constant)
        self._tokenizer: Tokenizer | None = None
        self._optimizer = optimizer
        self._lr_scheduler = lr_scheduler

    def setup(self, stage: str) -> None:
        """Read the tokenizer of a published checkpoint."""
        if self.hparams["size"] != "tiny" and self._tokenizer is None:
            self._tokenizer = self._published_tokenizer()

    def configure_model(self) -> None:
        """Make the network, once, and read its published weights."""
        if self.network is not None:
            return
        options = self.hparams
        network = build_network(options["size"], options["difference"], options["zero_gate"])
        if options["pretrained"] not in (None, _TILES):
            new = load_released(network, options["pretrained"])
            rank_zero_info(f"read {options['pretrained']}; {len(new)} weights are new")
        if options["gradient_checkpointing"]:
            network.gradient_checkpointing_enable({"use_reentrant": False})
        self.network = with_lora(network, options["lora_rank"]) if options["lora_rank"] else network

    def on_fit_start(self) -> None:
        """Let a tiny network begin: with the weights of its pre-training, and with words.

        Here it is known whether a checkpoint was restored, which has both.
        """
        if self._tokenizer is not None:
            return
        known: list[str] = []
        if self.hparams["pretrained"] == _TILES:
            if self.trainer.is_global_zero:
                pretrained_on_tiles()
            self.trainer.strategy.barrier("pretrained_on_tiles")
            folder = pretrained_on_tiles()
            load_released(self.network, folder)
            known = words_of(folder)
        self._tokenizer = self._learned_words(known)

    def loss(self, batch: PairBatch, captions: list[str]) -> Tensor:
        """Mean cross-entropy in nats over the tokens of ``captions``, one for each pair."""
        answers = self._prompt().with_answers(captions, self.device)
        return self.network(pixel_values=self._pixels(batch), **answers).loss

    @torch.no_grad()
    def generate(self, batch: PairBatch) -> list[str]:
        """A caption for each pair."""
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
            eos_token_id=prompt.tokenizer.end_id,
        )
        answers = found[:, questions.shape[1] :].tolist()
        return [prompt.tokenizer.decode(answer) for answer in answers]

    @torch.no_grad()
    def difference_maps(self, batch: PairBatch) -> Tensor:
        """How far apart the vision tower's last features of the two images are.

        Returns:
            Euclidean distances ``(batch, rows, columns)``, one for each patch.
        """
        unwrapped = self.network.get_base_model() if self.hparams["lora_rank"] else self.network
        pixels = self._pixels(batch).flatten(0, 1)
        found = unwrapped.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-1]
        distances = torch.linalg.vector_norm(found[1::2] - found[0::2], dim=-1)
        side = math.isqrt(distances.shape[1])
        return distances.unflatten(1, (side, side)).float()

    def training_step(self, batch: PairBatch, batch_idx: int) -> Tensor:
        """The loss of a batch's captions."""
        loss = self.loss(batch, batch["caption"])
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch["id"]))
        return loss

    def validation_step(self, batch: PairBatch, batch_idx: int) -> None:
        """Collect captions of the validation part."""
        self._evaluate("val", self.val_scores, batch)

    def test_step(self, batch: PairBatch, batch_idx: int) -> None:
        """Collect captions of the test part."""
        self._evaluate("test", self.test_scores, batch)

    def predict_step(self, batch: PairBatch, batch_idx: int) -> list[dict[str, str]]:
        """``{"id", "caption"}`` for each pair."""
        captions = self.generate(batch)
        return [{"id": i, "caption": c} for i, c in zip(batch["id"], captions, strict=True)]

    def on_validation_epoch_end(self) -> None:
        """Log the scores of the whole validation part."""
        self._log_scores("val", self.val_scores)

    def on_test_epoch_end(self) -> None:
        """Log the scores of the whole test part."""
        self._log_scores("test", self.test_scores)

    def configure_optimizers(self) -> Any:
        """The optimizer, and its schedule with the interval it counts in."""
        return configure_optimizers(self, self._optimizer, self._lr_scheduler)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the words that were learned."""
        if isinstance(self._tokenizer, WordTokenizer):
            checkpoint["words"] = self._tokenizer.words

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the words up again."""
        if "words" in checkpoint:
            self._tokenizer = WordTokenizer(checkpoint["words"])

    def _published_tokenizer(self) -> QwenTokenizer:
        size, pretrained = self.hparams["size"], self.hparams["pretrained"]
        if pretrained is None:
            raise ValueError(
                f"pretrained=None: size={size!r} needs the folder of a downloaded checkpoint, for "
                "its weights and its tokenizer"
            )
        return QwenTokenizer(pretrained)

    def _learned_words(self, known: list[str]) -> WordTokenizer:
        datamodule: Any = getattr(self.trainer, "datamodule", None)
        if not hasattr(datamodule, "training_captions"):
            raise ValueError(
                "size='tiny' learns its words from the DataModule's training_captions(), which "
                f"{type(datamodule).__name__} does not have; use ChangeCaptionDataModule, or "
                "restore a trained checkpoint"
            )
        vocab_size = SIZES["tiny"].text["vocab_size"]
        texts = [QUESTION.replace("<image>", ""), *datamodule.training_captions()]
        return WordTokenizer.learned(texts, vocab_size, known)

    def _prompt(self) -> Prompt:
        self.setup("")  # without a Trainer nobody has called it
        if self._tokenizer is None:
            raise ValueError(
                "a tiny network has no words before it was trained: give the checkpoint of a fit, "
                "such as --ckpt_path=last.ckpt"
            )
        size = SIZES[self.hparams["size"]]
        vision = size.vision
        tokens_per_image = (vision["image_size"] // vision["patch_size"]) ** 2
        return Prompt(self._tokenizer, size.image_token_id, tokens_per_image)

    def _pixels(self, batch: PairBatch) -> Tensor:
        images = batch["images"]
        side = SIZES[self.hparams["size"]].vision["image_size"]
        if images.shape[-2:] != (side, side):
            flat = interpolate(images.flatten(0, 1), (side, side), mode="bicubic", antialias=True)
            images = flat.clamp(0, 1).unflatten(0, (-1, 2))
        return images * 2 - 1

    def _evaluate(self, stage: str, scores: ChangeCaptionScores, batch: PairBatch) -> None:
        first = [sentences[0] for sentences in batch["references"]]
        size = len(batch["id"])
        self.log(f"{stage}/loss", self.loss(batch, first), sync_dist=True, batch_size=size)
        scores.update(self.generate(batch), batch["references"], batch["id"], batch.get("changed"))

    def _log_scores(self, stage: str, scores: ChangeCaptionScores) -> None:
        found = scores.compute()
        scores.reset()
        numbers = {f"{stage}/{k}": float(v) for k, v in found.items() if not isinstance(v, str)}
        # Every rank has the scores of all of them.
        self.log_dict(numbers, rank_zero_only=False, sync_dist=False)
