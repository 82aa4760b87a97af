"""The question about a pair of images and its answer, as tokens."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor

QUESTION = (
    "This is the Image1 <image>. This is the second Image2 <image>.\n"
    "What difference happened from Image1 to Image2?"
)
"""The only question that CCExpert asks (arXiv 2411.11360, released code)."""
_QWEN_CHAT = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
)
_NO_TARGET = -100


class Tokenizer(Protocol):
    """What a prompt needs of a tokenizer."""

    pad_id: int
    end_id: int

    def encode(self, text: str) -> list[int]:
        """Tokens of a text, without any at its ends."""

    def decode(self, ids: Iterable[int]) -> str:
        """The text of tokens, without special ones."""


class QwenTokenizer:
    """The tokenizer of a published checkpoint, and the end of an answer in its chat format."""

    def __init__(self, folder: str) -> None:
        from transformers import AutoTokenizer

        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.end_id = cast("int", self._tokenizer.convert_tokens_to_ids("<|im_end|>"))
        self.pad_id = cast("int", self._tokenizer.convert_tokens_to_ids("<|endoftext|>"))

    def encode(self, text: str) -> list[int]:
        """Tokens of a text; ``<|im_start|>`` and its like are one token each."""
        return self._tokenizer(text, add_special_tokens=False)["input_ids"]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of tokens, without special ones."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=True).strip()


class Prompt:
    """Builds the inputs of the network from captions.

    Args:
        tokenizer: of the network.
        image_token_id: fills the places of image tokens.
        tokens_per_image: how many for each of the two images.
    """

    def __init__(self, tokenizer: Tokenizer, image_token_id: int, tokens_per_image: int) -> None:
        self.tokenizer = tokenizer
        template = _QWEN_CHAT if isinstance(tokenizer, QwenTokenizer) else QUESTION
        first, second, rest = (tokenizer.encode(part) for part in template.split("<image>"))
        image = [image_token_id] * tokens_per_image
        self.ids = [*first, *image, *second, *image, *rest]

    def questions(self, batch_size: int, device: torch.device) -> Tensor:
        """The same question for every pair, ``(batch_size, length)``."""
        return torch.tensor(self.ids, device=device).repeat(batch_size, 1)

    def with_answers(self, captions: Sequence[str], device: torch.device) -> dict[str, Tensor]:
        """Questions with answers; only the answers' tokens and their ends are targets.

        Returns:
            ``input_ids``, ``attention_mask`` and ``labels``, ``(len(captions), length)`` each,
            padded on the right.
        """
        answers = [[*self.tokenizer.encode(text), self.tokenizer.end_id] for text in captions]
        longest = max(map(len, answers))
        ids, mask, labels = [], [], []
        for answer in answers:
            padding = longest - len(answer)
            ids.append([*self.ids, *answer, *[self.tokenizer.pad_id] * padding])
            mask.append([1] * (len(self.ids) + len(answer)) + [0] * padding)
            labels.append([_NO_TARGET] * len(self.ids) + answer + [_NO_TARGET] * padding)
        return {
            "input_ids": torch.tensor(ids, device=device),
            "attention_mask": torch.tensor(mask, device=device),
            "labels": torch.tensor(labels, device=device),
        }
