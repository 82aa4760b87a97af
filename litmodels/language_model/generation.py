"""Continuations of prompts, the perplexity of texts, and exported folders."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.nn.functional import cross_entropy

from lightning_plugins.litmodels.language_model.network import context_length_of, ends_of_text

_DEFAULT_NEW_TOKENS = 100


@dataclass(frozen=True)
class TextScore:
    """How well a model predicts a text.

    Attributes:
        nats: Negative log-likelihood of the text.
        num_tokens: Tokens of the text.
        num_bytes: Bytes of the text in UTF-8.
    """

    nats: float
    num_tokens: int
    num_bytes: int

    @property
    def perplexity(self) -> float:
        """Exponential of the mean negative log-likelihood per token."""
        return math.exp(self.nats / self.num_tokens)

    @property
    def bits_per_byte(self) -> float:
        """Bits per byte, which models with different tokenizers have in common."""
        return self.nats / math.log(2) / self.num_bytes


class TextGeneration:
    """The part of ``CausalLM`` that reads, continues and exports texts."""

    network: nn.Module | None
    config: Any
    hparams: Any
    trainer: Trainer
    on_text: Callable[[str], None] | None = None
    _generation: dict[str, Any]
    _pretrained: str | None
    _end_of_document: int | None
    _generation_defaults: dict[str, Any] | None

    @property
    def _knows_end_of_text(self) -> bool:
        given = self.hparams.get("config") or {}
        is_of_pretrained = self._pretrained is not None or self._generation_defaults is not None
        return self._end_of_document is not None or is_of_pretrained or "eos_token_id" in given

    @property
    def context_length(self) -> int | None:
        """Tokens in the context of the network; None if its architecture has no limit."""
        return context_length_of(self.config)

    def export(self, folder: str | Path) -> None:
        """Write weights and configurations for ``AutoModelForCausalLM.from_pretrained``.

        The end of a document is the configuration's ``eos_token_id``, where ``generate`` stops.
        ``TokenDataModule.save_tokenizer`` writes the tokenizer to the same folder.

        Raises:
            ValueError: It is unknown which token ends a document, as for checkpoints of older
                releases; validate the model with its DataModule first.
            MisconfigurationException: The parameters are sharded over several processes.
        """
        network = self._whole_network("export")
        if not self._knows_end_of_text:
            raise ValueError(
                f"export to {str(folder)!r}: it is unknown which token ends a document; run "
                "Trainer.validate(model, datamodule=...) first, or set eos_token_id in config"
            )
        parts = network.config, network.generation_config
        before = [part.use_cache for part in parts]
        for part in parts:
            part.use_cache = True  # without it, each new token would cost the whole prefix
        try:
            network.save_pretrained(folder)
        finally:
            for part, value in zip(parts, before, strict=True):
                part.use_cache = value

    def score(self, text: str, tokenizer: Any) -> TextScore:
        """Compute the likelihood of a text: its perplexity and bits per byte.

        Every token counts, the first after the token that starts a document. A text longer than the
        context is divided into windows; each token has at least half a context before it.

        Args:
            text: The text, at least one character.
            tokenizer: The model's tokenizer of transformers, such as
                ``TokenDataModule.transformers_tokenizer``.
        """
        network = self._whole_network("score")
        return score_text(network, text, tokenizer, self.context_length)

    def predict_step(self, batch: Sequence[str], batch_idx: int) -> list[dict[str, Any]]:
        """Continue each prompt of a batch, and measure the prompt.

        ``TokenDataModule(prompts=...)`` provides prompts. An empty prompt is the start of a new
        document. The attribute ``on_text`` is called with each piece of text when it is generated.

        Returns:
            One mapping per prompt: ``prompt``; ``text``; ``stopped``, whether the model ended the
            document; ``perplexity`` and ``bits_per_byte`` of the prompt, None if it is empty.
        """
        network = self._whole_network("predict")
        tokenizer = getattr(
            getattr(self.trainer, "datamodule", None), "transformers_tokenizer", None
        )
        if tokenizer is None:
            raise MisconfigurationException(
                "predict needs a DataModule with transformers_tokenizer: use "
                "TokenDataModule(prompts=...)"
            )
        limit, found = self.context_length, []
        for prompt in batch:
            score = self.score(prompt, tokenizer) if prompt else None
            text, stopped = continue_prompt(
                network, prompt, tokenizer, limit, self._generation, self.on_text
            )
            found.append(
                {
                    "prompt": prompt,
                    "text": text,
                    "stopped": stopped,
                    "perplexity": score and score.perplexity,
                    "bits_per_byte": score and score.bits_per_byte,
                }
            )
        return found

    def _whole_network(self, what: str) -> Any:
        assert self.network is not None, "call configure_model() first"
        if any(hasattr(parameter, "to_local") for parameter in self.network.parameters()):
            raise MisconfigurationException(
                f"{what} does not support sharded parameters: load the checkpoint in one process"
            )
        return self.network


def first_token(config: Any) -> int:
    """Return the token before a text: the start of a text, or the end of the previous one.

    Raises:
        ValueError: The configuration has neither.
    """
    start = getattr(config, "bos_token_id", None)
    ends = ends_of_text(config)
    if start is None and not ends:
        raise ValueError(
            "the model has no token that starts or ends a text: set config.eos_token_id, or "
            "validate it with its DataModule first"
        )
    return ends[0] if start is None else start


@torch.inference_mode()
def score_text(network: Any, text: str, tokenizer: Any, context_length: int | None) -> TextScore:
    """Compute the likelihood of a text; see ``CausalLM.score``."""
    if not text:
        raise ValueError("text='': expected at least one character")
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    device = next(network.parameters()).device
    row = torch.tensor([first_token(network.config), *tokens], device=device)
    window = min(context_length or len(tokens), len(tokens))
    nats, done = 0.0, 0
    with _for_inference(network):
        while done < len(tokens):
            # Later windows predict their second half, so that each token has at least half a
            # window of context.
            end = window if done == 0 else min(done + math.ceil(window / 2), len(tokens))
            part = row[end - window : end + 1]
            logits = network(part[None, :-1], use_cache=False).logits[0, done - end :].float()
            nats += float(cross_entropy(logits, part[done - end :], reduction="sum").double())
            done = end
    return TextScore(nats, len(tokens), len(text.encode()))


@torch.inference_mode()
def continue_prompt(
    network: Any,
    prompt: str,
    tokenizer: Any,
    context_length: int | None,
    options: dict[str, Any],
    on_text: Callable[[str], None] | None = None,
) -> tuple[str, bool]:
    """Generate the continuation of a prompt; see ``CausalLM.continue_prompt``."""
    tokens = prompt_tokens(network.config, prompt, tokenizer)
    options = {"max_new_tokens": _DEFAULT_NEW_TOKENS, **options}
    if context_length is not None:
        room = context_length - len(tokens)
        if room < 1:
            raise ValueError(
                f"a prompt has {len(tokens)} tokens, but the model's context has {context_length}: "
                "shorten the prompt"
            )
        options["max_new_tokens"] = min(options["max_new_tokens"], room)
    if options["max_new_tokens"] == 0:
        return "", False
    inputs = torch.tensor([tokens], device=next(network.parameters()).device)
    ends = ends_of_text(network.generation_config)
    with _for_inference(network):
        row = network.generate(
            inputs,
            attention_mask=torch.ones_like(inputs),
            use_cache=True,
            pad_token_id=ends[0] if ends else None,
            streamer=None if on_text is None else _streamer(tokenizer, on_text),
            **options,
        )[0, len(tokens) :].tolist()
    stopped = bool(row) and row[-1] in ends
    return tokenizer.decode(row, skip_special_tokens=True), stopped


def prompt_tokens(config: Any, prompt: str, tokenizer: Any) -> list[int]:
    """Encode a prompt as its tokenizer does; an empty one is the start of a new document."""
    tokens = list(tokenizer(prompt)["input_ids"]) if prompt else []
    # Tokenizers of encoders end each text, after which the model would start another document.
    if tokens and tokens[-1] in ends_of_text(config):
        tokens.pop()
    return tokens or [first_token(config)]


@contextmanager
def _for_inference(network: Any) -> Iterator[None]:
    """Switch off dropout, activation checkpointing, which forbids the cache, and compilation."""
    was_training = network.training
    network.eval()
    try:
        # Each new length of the text would compile the network again.
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        network.train(was_training)


def _streamer(tokenizer: Any, on_text: Callable[[str], None]) -> Any:
    from transformers import TextStreamer

    class Pieces(TextStreamer):
        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            if text:
                on_text(text)

    return Pieces(tokenizer, skip_prompt=True, skip_special_tokens=True)
