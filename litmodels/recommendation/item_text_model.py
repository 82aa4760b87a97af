"""A small language model that is trained from scratch to write paths of titles."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lightning_plugins.checkpoints import CheckedLoading
from lightning_plugins.litmodels.recommendation.language.local_model import LocalModel
from lightning_plugins.litmodels.recommendation.language.prompts import (
    history_and_target,
    one_line,
)
from lightning_plugins.nn.recommendation import Catalogue
from lightning_plugins.nn.recommendation.item_network import unpadded
from lightning_plugins.optimizers import configure_optimizers
from lightning_plugins.optional_packages import requires

_END = "<end>"
_IGNORED = -100


class ItemTextModel(CheckedLoading, LightningModule):
    """A Llama with a few hundred thousand parameters, trained on user histories as text.

    A training text consists of a user's history, a later item as the target, and the items taken
    between the two, one title per line. The loss covers only the items between. The model therefore
    learns to lead to a target, and its texts have the format of ``LanguageModelTrie``'s prompts. It
    only knows this data and does not replace a large language model.

    Trains on an ``InteractionDataModule``. Logged: ``train/loss`` and ``val/loss`` in nats per
    token.

    This model is our own; using the end of a window as the objective follows Zhu et al.,
    arXiv 2211.10002.

    Args:
        hidden_size: Hidden size of the network, a multiple of ``heads``.
        layers: Number of layers.
        heads: Number of attention heads.
        vocabulary: Number of tokens, including all bytes; learned from the titles.
        path_length: Maximum length of a path.
        export_to: Folder for a transformers checkpoint, for ``LocalModel``, at the end of training;
            None writes no checkpoint.
        optimizer: Builds the optimizer from named parameters.

    Raises:
        ValueError: An argument is out of range.
        ImportError: In ``setup``, if transformers is not installed.
    """

    def __init__(
        self,
        hidden_size: int = 128,
        layers: int = 2,
        heads: int = 4,
        vocabulary: int = 1024,
        path_length: int = 10,
        export_to: str | None = None,
        optimizer: OptimizerCallable = lambda p: torch.optim.AdamW(p, lr=2e-3),
    ) -> None:
        super().__init__()
        counts = {"layers": layers, "heads": heads, "path_length": path_length}
        for name, count in counts.items():
            if count < 1:
                raise ValueError(f"{name}={count}: expected at least 1")
        if hidden_size < heads or hidden_size % heads:
            raise ValueError(f"hidden_size={hidden_size}: expected a multiple of heads={heads}")
        if vocabulary < 257:
            raise ValueError(
                f"vocabulary={vocabulary}: expected at least 257, for all bytes and an end token"
            )
        self.save_hyperparameters(ignore=["optimizer"])
        self.network: Any = None
        self._words: str | None = (
            None  # the tokenizer as JSON, the form in which checkpoints store it
        )
        self._tokenizer: Any = None
        self._optimizer = optimizer

    def setup(self, stage: str) -> None:
        """Train the tokenizer on the titles, unless a checkpoint contained one."""
        self._catalogue: Catalogue = self.trainer.datamodule.catalogue  # type: ignore[attr-defined]
        if self._words is None:
            texts = [
                history_and_target(self._catalogue, [n], n) for n in range(1, len(self._catalogue))
            ]
            self._words = _learned_words(texts, self.hparams["vocabulary"])

    def configure_model(self) -> None:
        """Create the network on the first call."""
        if self.network is not None or self._words is None:
            return
        from transformers import LlamaConfig, LlamaForCausalLM

        config = LlamaConfig(
            vocab_size=len(self.tokenizer),
            hidden_size=self.hparams["hidden_size"],
            intermediate_size=4 * self.hparams["hidden_size"],
            num_hidden_layers=self.hparams["layers"],
            num_attention_heads=self.hparams["heads"],
            max_position_embeddings=4096,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=self.tokenizer.eos_token_id,
        )
        self.network = LlamaForCausalLM(config).train(self.training)

    @property
    def tokenizer(self) -> Any:
        """The transformers tokenizer; available after ``setup``."""
        if self._tokenizer is None:
            from tokenizers import Tokenizer
            from transformers import PreTrainedTokenizerFast

            assert self._words is not None
            self._tokenizer = PreTrainedTokenizerFast(
                tokenizer_object=Tokenizer.from_str(self._words), eos_token=_END, pad_token=_END
            )
        return self._tokenizer

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of a path between a random start and a random end in each window."""
        windows = unpadded(batch["items"])
        # Two items have no item between them. They are used only if a batch has no longer window.
        sequences = [items for items in windows if len(items) >= 3] or windows
        longest = [min(len(items) - 1, self._longest) for items in sequences]
        lengths = [self._drawn(min(2, most), most) for most in longest]
        ends = [
            self._drawn(length + 1, len(items))
            for items, length in zip(sequences, lengths, strict=True)
        ]
        texts = [
            self._text(items[:end], length)
            for items, end, length in zip(sequences, ends, lengths, strict=True)
        ]
        loss = self._loss(texts)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(windows))
        return loss

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Log the loss of the latest items up to the target."""
        targets = batch["target"].tolist()
        sequences = [
            [*items, target]
            for items, target in zip(unpadded(batch["history"]), targets, strict=True)
        ]
        texts = [self._text(items, min(len(items) - 1, self._longest)) for items in sequences]
        self.log("val/loss", self._loss(texts), prog_bar=True, batch_size=len(texts))

    def configure_optimizers(self) -> Any:
        """Create the optimizer."""
        return configure_optimizers(self, self._optimizer, None)

    def on_train_end(self) -> None:
        """Export the model if ``export_to`` is set."""
        if self.hparams["export_to"] is not None and self.trainer.is_global_zero:
            self.export(self.hparams["export_to"])
            rank_zero_info(f"wrote {self.hparams['export_to']}, which LocalModel can load")

    def export(self, folder: str) -> None:
        """Write network and tokenizer as a transformers checkpoint, for ``LocalModel``."""
        self.network.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the tokenizer with the weights."""
        checkpoint["words"] = self._words

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the tokenizer, and create the network with its vocabulary size."""
        self._words = checkpoint["words"]
        self.configure_model()

    @property
    def _longest(self) -> int:
        """Maximum number of items of a path and its target."""
        return self.hparams["path_length"] + 1

    def _drawn(self, low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, ()))

    def _text(self, items: Sequence[int], length: int) -> tuple[list[int], list[int]]:
        """Return the tokens of the prompt, and of the path before the target.

        The path and the target are the last ``length`` items.
        """
        begun, path, target = items[:-length], items[-length:-1], items[-1]
        prompt = LocalModel.plain_prompt(history_and_target(self._catalogue, begun, target))
        lines = "".join(LocalModel.line(one_line(self._catalogue[item])) for item in path)
        encode = self.tokenizer.encode
        return encode(prompt), [*encode(lines), self.tokenizer.eos_token_id]

    def _loss(self, texts: Sequence[tuple[list[int], list[int]]]) -> Tensor:
        tokens = [torch.tensor([*prompt, *path]) for prompt, path in texts]
        labels = [torch.tensor([_IGNORED] * len(prompt) + path) for prompt, path in texts]
        inputs = pad_sequence(tokens, batch_first=True).to(self.device)
        wanted = pad_sequence(labels, batch_first=True, padding_value=_IGNORED).to(self.device)
        # Padding is at the end, where the causal mask hides it.
        return self.network(input_ids=inputs, labels=wanted).loss


def _learned_words(texts: Sequence[str], vocabulary: int) -> str:
    with requires("transformers", "tokenizers", by="ItemTextModel", extra="recsys"):
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[_END],
        show_progress=False,
    )
    words.train_from_iterator(texts, trainer)
    return words.to_str()
