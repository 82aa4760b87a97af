"""Measures the accuracy of a text detector under attack during a test or validation run."""

import math
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from torchmetrics import MeanMetric

from lightning_plugins._lightning_compat.processes import data_share
from lightning_plugins.attacks.text import (
    PWWS,
    DeepWordBug,
    EmbeddingNeighbours,
    FreshNoise,
    MaskedLM,
    Pruthi,
    TextBugger,
    attack_texts,
    still_misled,
)
from lightning_plugins.callbacks.batches import element_of
from lightning_plugins.callbacks.plugin_callback import PluginCallback
from lightning_plugins.callbacks.unsupported_strategies import refuse_sharded
from lightning_plugins.metrics.attack_scores import AttackScores
from lightning_plugins.nn.shards import gathered

ATTACKS = {
    "deep_word_bug": DeepWordBug,
    "embedding_neighbours": EmbeddingNeighbours,
    "masked_lm": MaskedLM,
    "pruthi": Pruthi,
    "pwws": PWWS,
    "text_bugger": TextBugger,
}


class AdversarialTextEvaluation(PluginCallback, reads_files=True):
    """Attacks the first texts of a test or validation run and logs the accuracy that remains.

    The module must have a method ``probabilities(texts, seed)`` that maps a list of strings to the
    probabilities of class 1; the seed is that of its noise, if it has any. Each query uses new
    noise. The texts that the attack finds are then scored again with noise that the search did not
    see. A detector with random noise misleads a greedy search: the search keeps lucky draws, and
    the detector is correct again in the next draw. For a detector without noise both accuracies are
    the same. The sanity check before training is skipped. Under FSDP2 each process holds all
    weights during the attack, because the number of its queries depends on the texts.

    Logs with the prefix ``attack/``, over all processes: ``original_accuracy``,
    ``accuracy_under_attack``, ``attack_success_rate``, ``queries`` and ``changed_words`` of
    :class:`lightning_plugins.metrics.AttackScores`, and ``accuracy_under_fresh_noise``: the share
    of new draws in which the detector classifies the found text correctly, averaged over the texts.

    Args:
        attack: ``deep_word_bug``, ``embedding_neighbours``, ``masked_lm``, ``pruthi``, ``pwws``
            or ``text_bugger``.
        attack_options: The arguments of the attack's class in
            :mod:`lightning_plugins.attacks.text`.
        stage: The loop to measure in: ``test``, or ``validate``, which ``fit`` also runs.
        num_samples: The number of texts to attack, over all processes.
        label: The class whose texts are attacked; None means both.
        noise_samples: The number of draws that are averaged for each query. More than one attacks
            the expectation over the noise; 1 is the attack of the papers.
        fresh_draws: The number of new draws of the noise with which the found texts are scored.
        threshold: The detector predicts class 1 if its score is above this value.
        text_key: The index of the texts in a batch that is a tuple or list, or their key in a
            dictionary.
        label_key: The index or key of the labels.
        seed: The seed of the attack and of the noise.

    Raises:
        ValueError: An argument is outside its range, or the module has no method
            ``probabilities``.
        MisconfigurationException: The strategy is FSDP (version 1) or DeepSpeed.
        FileNotFoundError: ``pwws`` finds no WordNet, or ``embedding_neighbours`` finds no vectors.

    Example::

        trainer = Trainer(callbacks=[AdversarialTextEvaluation("deep_word_bug", num_samples=100)])
        trainer.test(detector, datamodule=data)
    """

    def __init__(
        self,
        attack: str = "deep_word_bug",
        attack_options: dict[str, Any] | None = None,
        stage: Literal["test", "validate"] = "test",
        num_samples: int = 100,
        label: int | None = 1,
        noise_samples: int = 1,
        fresh_draws: int = 10,
        threshold: float = 0.5,
        text_key: int | str = "text",
        label_key: int | str = "label",
        seed: int = 0,
    ) -> None:
        if attack not in ATTACKS:
            raise ValueError(f"attack={attack!r}: expected one of {', '.join(ATTACKS)}")
        if stage not in ("test", "validate"):
            raise ValueError(f"stage={stage!r}: expected 'test' or 'validate'")
        if label not in (0, 1, None):
            raise ValueError(f"label={label!r}: expected 0, 1, or None for both")
        positive = {
            "num_samples": num_samples,
            "noise_samples": noise_samples,
            "fresh_draws": fresh_draws,
        }
        for name, value in positive.items():
            if value < 1:
                raise ValueError(f"{name}={value}: expected at least 1")
        if seed < 0:
            raise ValueError(f"seed={seed}: expected at least 0")
        try:
            self.attack = ATTACKS[attack](**(attack_options or {}))
        except TypeError as error:
            raise ValueError(f"attack_options={attack_options}: {attack}: {error}") from error
        self.stage = stage
        self.num_samples = num_samples
        self.label = label
        self.noise_samples = noise_samples
        self.fresh_draws = fresh_draws
        self.threshold = threshold
        self.text_key = text_key
        self.label_key = label_key
        self.seed = seed
        self._texts: list[str] = []
        self._labels: list[int] = []

    def check(self, trainer: Trainer) -> None:
        """Refuse an unsupported Trainer before data is prepared."""
        refuse_sharded(trainer, self, supports=("fsdp2", "tp"))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a module without probabilities of texts."""
        self.check(trainer)
        if not callable(getattr(pl_module, "probabilities", None)):
            raise ValueError(
                f"{type(pl_module).__name__} has no method probabilities(texts, seed), which "
                "AdversarialTextEvaluation calls"
            )

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect the texts of a validation batch."""
        if self.stage == "validate" and not trainer.sanity_checking:
            self._keep(trainer, batch)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Attack the collected texts."""
        if self.stage == "validate" and not trainer.sanity_checking:
            self._evaluate(pl_module)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect the texts of a test batch."""
        if self.stage == "test":
            self._keep(trainer, batch)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Attack the collected texts."""
        if self.stage == "test":
            self._evaluate(pl_module)

    def _keep(self, trainer: Trainer, batch: Any) -> None:
        of_this_process = math.ceil(self.num_samples / data_share(trainer)[1])
        texts = element_of(batch, self.text_key, "text_key")
        labels = element_of(batch, self.label_key, "label_key").tolist()
        for text, label in zip(texts, labels, strict=True):
            if len(self._texts) < of_this_process and self.label in (label, None):
                self._texts.append(text)
                self._labels.append(label)

    def _evaluate(self, pl_module: LightningModule) -> None:
        texts, labels = self._texts, self._labels
        self._texts, self._labels = [], []
        detector: Any = pl_module.probabilities
        victim = FreshNoise(detector, self.noise_samples, self.seed)
        with gathered(pl_module):
            results = attack_texts(
                self.attack, victim, texts, labels, threshold=self.threshold, seed=self.seed
            )
            misled = still_misled(results, detector, self.fresh_draws, threshold=self.threshold)
        scores = AttackScores().to(pl_module.device)
        scores.update(results)
        # compute() reduces over the processes.
        pl_module.log_dict({f"attack/{name}": x.float() for name, x in scores.compute().items()})
        right = MeanMetric().to(pl_module.device)
        right.update(1 - torch.tensor(misled, device=pl_module.device))
        pl_module.log("attack/accuracy_under_fresh_noise", right.compute())
