"""The prompt about a pair of images, and its tokenizers."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor

QUESTION = (
    "This is the Image1 <image>. This is the second Image2 <image>.\n"
    "What difference happened from Image1 to Image2?"
)
"""The prompt of CCExpert (arXiv 2411.11360, released code), which is the same for all pairs."""
_QWEN_CHAT = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
)
_NO_TARGET = -100


class Tokenizer(Protocol):
    """Interface of a tokenizer for :class:`Prompt`."""

    pad_id: int
    end_id: int

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text, without start and end tokens."""

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of tokens, without special tokens."""


class QwenTokenizer:
    """The tokenizer of a published checkpoint, with the end token of its chat format.

    Args:
        folder: Folder of the checkpoint.
    """

    def __init__(self, folder: str) -> None:
        from transformers import AutoTokenizer

        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        self.end_id = cast("int", self._tokenizer.convert_tokens_to_ids("<|im_end|>"))
        self.pad_id = cast("int", self._tokenizer.convert_tokens_to_ids("<|endoftext|>"))

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text; special tokens such as ``<|im_start|>`` are one each."""
        return self._tokenizer(text, add_special_tokens=False)["input_ids"]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of tokens, without special tokens."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=True).strip()


class Prompt:
    """Builds the inputs of the network from captions.

    Args:
        tokenizer: Tokenizer of the network.
        image_token_id: Id of the placeholder for an image token.
        tokens_per_image: Number of placeholders for each of the two images.
    """

    def __init__(self, tokenizer: Tokenizer, image_token_id: int, tokens_per_image: int) -> None:
        self.tokenizer = tokenizer
        template = _QWEN_CHAT if isinstance(tokenizer, QwenTokenizer) else QUESTION
        first, second, rest = (tokenizer.encode(part) for part in template.split("<image>"))
        image = [image_token_id] * tokens_per_image
        self.ids = [*first, *image, *second, *image, *rest]

    def questions(self, batch_size: int, device: torch.device) -> Tensor:
        """Return the question's tokens for each pair, ``(batch_size, length)``."""
        return torch.tensor(self.ids, device=device).repeat(batch_size, 1)

    def with_answers(self, captions: Sequence[str], device: torch.device) -> dict[str, Tensor]:
        """Return questions with answers; the targets are the answers' tokens and end tokens.

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
