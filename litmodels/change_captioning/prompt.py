"""The prompt about a pair of images, and its tokenizers."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import torch
from torch import Tensor

from lightning_plugins.litmodels.change_captioning.network import NO_TARGET

QUESTION = (
    "This is the Image1 <image>. This is the second Image2 <image>.\n"
    "What difference happened from Image1 to Image2?"
)
"""The prompt of CCExpert (arXiv 2411.11360, released code), which is the same for all pairs."""
LossOn = Literal["conversation", "answer"]


class Tokenizer(Protocol):
    """Interface of a tokenizer for :class:`Prompt`.

    Attributes:
        pad_id: Token that fills shorter rows.
        end_id: Token that ends an answer.
        template: The conversation up to the answer's header, with ``<image>`` twice.
        header: Start of the answer's turn.
        footer: What follows the end token in training.
        marker_ids: Tokens that structure the conversation.
    """

    pad_id: int
    end_id: int
    template: str
    header: str
    footer: str
    marker_ids: frozenset[int]

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text, without start and end tokens."""

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of tokens, without special tokens."""

    def save(self, folder: str | Path) -> None:
        """Write the files of the tokenizer to a folder."""


class QwenTokenizer:
    """The tokenizer of a published checkpoint, with the end token of its chat format.

    Args:
        folder: Folder of the checkpoint.
    """

    template = (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        f"<|im_start|>user\n{QUESTION}<|im_end|>\n"
    )
    header = "<|im_start|>assistant\n"
    footer = "\n"

    def __init__(self, folder: str) -> None:
        from transformers import AutoTokenizer

        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        self.end_id = cast("int", self._tokenizer.convert_tokens_to_ids("<|im_end|>"))
        self.pad_id = cast("int", self._tokenizer.convert_tokens_to_ids("<|endoftext|>"))
        start_id = cast("int", self._tokenizer.convert_tokens_to_ids("<|im_start|>"))
        # A line end that is part of a longer token, such as ".\n", is no marker.
        self.marker_ids = frozenset({start_id, self.end_id, *self.encode("\n")})

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text; special tokens such as ``<|im_start|>`` are one each."""
        return self._tokenizer(text, add_special_tokens=False)["input_ids"]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of tokens, without special tokens."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=True).strip()

    def save(self, folder: str | Path) -> None:
        """Write the files of the tokenizer to a folder."""
        self._tokenizer.save_pretrained(folder)


class Prompt:
    """Builds the inputs of the network from captions.

    Special tokens inside of a caption (``<|im_end|>``, ``<image>``) are left out: they would end
    the answer, or need an image.

    Args:
        tokenizer: Tokenizer of the network.
        image_token_id: Id of the placeholder for an image token.
        tokens_per_image: Number of placeholders for each of the two images.
        loss_on: Targets of the loss. ``conversation`` is the choice of CCExpert's code for Qwen:
            the whole turn of the assistant (header, answer, end and line end), and the markers and
            line ends of the other turns. ``answer`` is the answer and its end only. Without chat
            markers, as for ``size="tiny"``, both are the same.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        image_token_id: int,
        tokens_per_image: int,
        loss_on: LossOn = "conversation",
    ) -> None:
        self.tokenizer = tokenizer
        template = tokenizer.template.split("<image>")
        first, second, rest = (tokenizer.encode(part) for part in template)
        image = [image_token_id] * tokens_per_image
        turn = [*first, *image, *second, *image, *rest]
        header = tokenizer.encode(tokenizer.header)
        self._footer = tokenizer.encode(tokenizer.footer)
        line_end = set(tokenizer.encode("\n"))
        self._not_in_answers = {image_token_id, tokenizer.pad_id, tokenizer.end_id} | (
            tokenizer.marker_ids - line_end
        )
        self.ids = [*turn, *header]
        if loss_on == "conversation":
            markers = tokenizer.marker_ids - {image_token_id}
            self._labels = [token if token in markers else NO_TARGET for token in turn] + header
            self._footer_labels = self._footer
        else:
            self._labels = [NO_TARGET] * len(self.ids)
            self._footer_labels = [NO_TARGET] * len(self._footer)

    def questions(self, batch_size: int, device: torch.device) -> Tensor:
        """Return the question's tokens for each pair, ``(batch_size, length)``."""
        return torch.tensor(self.ids, device=device).repeat(batch_size, 1)

    def with_answers(self, captions: Sequence[str], device: torch.device) -> dict[str, Tensor]:
        """Return questions with answers, and the targets of the loss.

        Returns:
            ``input_ids``, ``attention_mask`` and ``labels``, ``(len(captions), length)`` each,
            padded on the right.
        """
        answers = [[*self._answer(text), self.tokenizer.end_id] for text in captions]
        longest = max(map(len, answers))
        ids, mask, labels = [], [], []
        for answer in answers:
            padding = longest - len(answer)
            ids.append([*self.ids, *answer, *self._footer, *[self.tokenizer.pad_id] * padding])
            mask.append([1] * (len(ids[-1]) - padding) + [0] * padding)
            labels.append([*self._labels, *answer, *self._footer_labels, *[NO_TARGET] * padding])
        return {
            "input_ids": torch.tensor(ids, device=device),
            "attention_mask": torch.tensor(mask, device=device),
            "labels": torch.tensor(labels, device=device),
        }

    def _answer(self, text: str) -> list[int]:
        return [t for t in self.tokenizer.encode(text) if t not in self._not_in_answers]
