"""A small language model that learns from nothing to write paths of titles."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lightning_plugins.litmodels.recommendation.language.local_model import LocalModel
from lightning_plugins.litmodels.recommendation.language.prompts import (
    history_and_target,
    one_line,
)
from lightning_plugins.nn.recommendation import Catalogue
from lightning_plugins.nn.recommendation.item_network import unpadded
from lightning_plugins.optimizers import configure_optimizers

_END = "<end>"
_IGNORED = -100


class ItemTextModel(LightningModule):
    """A Llama of a few hundred thousand parameters, trained on what people took, as text.

    A training text is the beginning of a user's items, the item that the user came to as target,
    and what was taken between the two, a title a line; the loss is on those. So it learns to lead
    to a target, in the very words in which ``LanguageModelTrie`` asks for a path. It knows nothing
    but this data, and is no stand-in for a large language model.

    Trains on an ``InteractionDataModule``. Logged: ``train/loss`` and ``val/loss``, nats a token.

    Ours; the objective at the end of a window is that of Zhu et al., arXiv 2211.10002.

    Args:
        hidden_size: of the network, a multiple of ``heads``.
        layers: of the network.
        heads: of its attention.
        vocabulary: tokens, bytes among them; learned from the titles.
        path_length: longest path.
        export_to: folder that gets a checkpoint of transformers, for ``LocalModel``, when training
            ends; None writes none.
        optimizer: builds the optimizer from named parameters.

    Raises:
        ValueError: an argument outside its range.
        ImportError: in ``setup``, without transformers.
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
                f"vocabulary={vocabulary}: expected at least 257, a byte each and an end"
            )
        self.save_hyperparameters(ignore=["optimizer"])
        self.network: Any = None
        self._words: str | None = None  # the tokenizer, as the JSON that it is stored as
        self._tokenizer: Any = None
        self._optimizer = optimizer

    def setup(self, stage: str) -> None:
        """Learn the tokenizer from the titles, unless a checkpoint brought one."""
        self._catalogue: Catalogue = self.trainer.datamodule.catalogue  # type: ignore[attr-defined]
        if self._words is None:
            texts = [
                history_and_target(self._catalogue, [n], n) for n in range(1, len(self._catalogue))
            ]
            self._words = _learned_words(texts, self.hparams["vocabulary"])

    def configure_model(self) -> None:
        """Make the network, once."""
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
        self.network = LlamaForCausalLM(config)

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of transformers; there after ``setup``."""
        if self._tokenizer is None:
            from tokenizers import Tokenizer
            from transformers import PreTrainedTokenizerFast

            assert self._words is not None
            self._tokenizer = PreTrainedTokenizerFast(
                tokenizer_object=Tokenizer.from_str(self._words), eos_token=_END, pad_token=_END
            )
        return self._tokenizer

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Loss of paths between a beginning and an end that are drawn in each window."""
        windows = unpadded(batch)
        # Two items have nothing between them; but a batch of such windows alone needs a loss too.
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
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch))
        return loss

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Loss of the latest items up to the one that is asked for."""
        targets = batch["target"].tolist()
        sequences = [
            [*items, target]
            for items, target in zip(unpadded(batch["history"]), targets, strict=True)
        ]
        texts = [self._text(items, min(len(items) - 1, self._longest)) for items in sequences]
        self.log("val/loss", self._loss(texts), prog_bar=True, batch_size=len(texts))

    def configure_optimizers(self) -> Any:
        """The optimizer."""
        return configure_optimizers(self, self._optimizer, None)

    def on_train_end(self) -> None:
        """Export, where that is asked for."""
        if self.hparams["export_to"] is not None and self.trainer.is_global_zero:
            self.export(self.hparams["export_to"])
            rank_zero_info(f"{self.hparams['export_to']}: for LocalModel")

    def export(self, folder: str) -> None:
        """Write network and tokenizer so that transformers, and ``LocalModel``, read them."""
        self.network.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the tokenizer with the weights."""
        checkpoint["words"] = self._words

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the tokenizer, so that the network has its size."""
        self._words = checkpoint["words"]
        self.configure_model()

    @property
    def _longest(self) -> int:
        """Items of a path with its target."""
        return self.hparams["path_length"] + 1

    def _drawn(self, low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, ()))

    def _text(self, items: Sequence[int], length: int) -> tuple[list[int], list[int]]:
        """Tokens of the prompt, and of the path before the target, the last of ``length`` items."""
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
        # Padding stands at the end, where causality hides it.
        return self.network(input_ids=inputs, labels=wanted).loss


def _learned_words(texts: Sequence[str], vocabulary: int) -> str:
    try:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    except ImportError as error:
        raise ImportError(
            'ItemTextModel needs transformers: pip install "lightning-plugins[recsys]"'
        ) from error
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
