"""Detectors that others trained: any sequence classifier of transformers."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_plugins.datamodules.ai_text.labels import is_ai_name, is_human_name
from lightning_plugins.litmodels.ai_text.tokenization import PretrainedTokenizer
from lightning_plugins.litmodels.ai_text.window_scores import mean_over_windows, padded
from lightning_plugins.optional_packages import requires


class SequenceClassifier:
    """Scores texts with an ``AutoModelForSequenceClassification``, for instance as a victim.

    The probability of AI is that of all classes except the human one. Long texts are scored in
    windows, whose scores are averaged by their numbers of tokens. To train such a network further,
    give its folder to ``AITextDetector(encoder=...)``, which takes its encoder.

    Args:
        name: Folder of a checkpoint, or a name on the Hugging Face hub.
        labels: ``human`` or ``ai`` by name of a class in the configuration's ``id2label``, such as
            ``{"LABEL_0": "ai", "LABEL_1": "human"}``; None if the names state it, such as ``Human``
            and ``ChatGPT``, or ``Fake`` and ``Real``.
        max_length: Tokens of a window; None for the most that the network reads, at most 512.
        batch_size: Windows per forward pass.
        device: Device of the network.

    Attributes:
        network: The model of transformers, in evaluation mode and float32.
        class_names: Names of the classes, in the order of the logits.

    Raises:
        ImportError: transformers is not installed.
        ValueError: The names of the classes do not state which is human, or the tokenizer is slow.

    Example::

        victim = SequenceClassifier("path/to/checkpoint")
        results = attack_texts(DeepWordBug(), victim.score, texts, labels)
    """

    def __init__(
        self,
        name: str,
        labels: Mapping[str, str] | None = None,
        max_length: int | None = None,
        batch_size: int = 32,
        device: str = "cpu",
    ) -> None:
        with requires("transformers", by="SequenceClassifier", extra="text"):
            from transformers import AutoModelForSequenceClassification
        network: Any = AutoModelForSequenceClassification.from_pretrained(
            name, trust_remote_code=False
        )
        self.network: Any = network.float().eval().to(device)
        config: Any = self.network.config
        self.class_names = [str(config.id2label[place]) for place in range(config.num_labels)]
        self._is_ai = _ai_classes(self.class_names, labels)
        self._tokenizer = PretrainedTokenizer(name)
        positions = getattr(config, "max_position_embeddings", 512)
        # RoBERTa's positions begin after its padding index.
        offset = (config.pad_token_id or 0) + 1 if config.model_type.endswith("roberta") else 0
        self._max_length = max_length or min(positions - offset, 512)
        self._batch_size = batch_size

    def score(self, texts: Sequence[str]) -> list[float]:
        """Return the probabilities that texts are written by AI."""
        return self.probabilities(texts).tolist()

    @torch.no_grad()
    def probabilities(self, texts: Sequence[str]) -> Tensor:
        """Return the probabilities that texts are written by AI, float32 ``(texts,)``."""
        texts = list(texts)
        if not texts:
            return torch.zeros(0)
        windows = self._tokenizer.windows(texts, self._max_length)
        order = sorted(range(len(windows)), key=lambda place: len(windows[place].ids))
        scores = torch.zeros(1, len(windows))
        device = self.network.device
        for first in range(0, len(order), self._batch_size):
            places = order[first : first + self._batch_size]
            input_ids, mask = padded(
                [windows[place] for place in places], self._tokenizer.pad_id, device
            )
            logits = self.network(input_ids, attention_mask=mask).logits.float()
            if logits.shape[-1] == 1:
                ai = logits.sigmoid()[:, 0]
                ai = ai if self._is_ai[0] else 1 - ai
            else:
                ai = logits.softmax(-1)[:, self._is_ai].sum(-1)
            scores[0, places] = ai.cpu()
        return mean_over_windows(scores, windows, len(texts))[0]


def _ai_classes(names: Sequence[str], labels: Mapping[str, str] | None) -> list[bool]:
    """Return for each class whether it is AI."""
    if labels is not None:
        if set(labels) != set(names) or set(labels.values()) - {"human", "ai"}:
            raise ValueError(
                f"labels={dict(labels)}: expected 'human' or 'ai' for each of {', '.join(names)}"
            )
        return [labels[name] == "ai" for name in names]
    human = [is_human_name(name) for name in names]
    known = len(names) == 1 and is_ai_name(names[0])
    if known or (any(human) and not all(human)):
        return [not one for one in human]
    example = dict(zip(names, ("human", "ai"), strict=False))
    raise ValueError(
        f"labels=None: the classes {', '.join(names)} do not state which is human; set labels, "
        f"such as {example}"
    )
