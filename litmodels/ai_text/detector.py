"""A detector of AI-generated text on any encoder."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from lightning_plugins.checkpoints import WORD, CheckedLoading, CheckpointStrings
from lightning_plugins.litmodels.ai_text.detection_metrics import (
    FALSE_POSITIVE_RATES,
    DetectionMetrics,
)
from lightning_plugins.litmodels.ai_text.encoder import build_encoder, build_tokenizer
from lightning_plugins.litmodels.ai_text.released_weights import released_state_dict
from lightning_plugins.litmodels.ai_text.tokenization import (
    TextTokenizer,
    Window,
    first_windows,
    mask_words,
)
from lightning_plugins.litmodels.ai_text.window_scores import (
    Scan,
    WindowScorer,
    generator_of,
    mean_over_windows,
    padded,
    scans_of,
)
from lightning_plugins.nn.ai_text import METHODS, DetectorNetwork
from lightning_plugins.nn.module_state import evaluation_mode
from lightning_plugins.optimizers import configure_optimizers

Batch = dict[str, Any]


class AITextDetector(CheckedLoading, LightningModule):
    """Detects AI-generated text with any encoder, trained by one of five robust methods.

    Batches are dictionaries with ``text``, a list of strings, and ``label``, int64 ``(batch,)``:
    0 human, 1 AI. Training reads the first ``max_length`` tokens of a text. The score of a text is
    the mean over its windows of that length, weighted by their numbers of tokens, and does not
    depend on the other texts of the batch. ``configure_model`` builds the networks.

    ``inference_noise`` controls the noise of stochastic methods during scoring. With ``False`` or
    0 there is no noise: SCRN decodes the mean, RanMask masks nothing. ``True`` or 1 draws once, as
    the code released with arXiv 2406.01179. ``k`` averages the probabilities of ``k`` draws, or
    counts their votes. The noise depends on the seed and the text alone; another ``seed`` gives new
    noise. A detector with new noise in each answer misleads a greedy search, but may still be wrong
    on the texts that the search finds; measure both.

    Logged in training: ``train/loss`` and, if the method has them, its parts
    ``train/classification_loss``, ``train/calibration_loss`` and ``train/reconstruction_loss``.
    Logged in validation and test, with the prefix ``val/`` or ``test/``: ``loss`` (cross-entropy of
    the scores), ``accuracy`` at 0.5, ``auroc``, ``calibration_error`` (15 bins),
    ``tpr_at_1_percent_fpr`` and ``tpr_at_5_percent_fpr``, whose thresholds are those of the same
    texts. If the test batches have ``domain`` or ``generator``, ``test/auroc_of_domain/NAME`` and
    ``test/auroc_of_generator/NAME`` are logged too.

    Args:
        encoder: ``minilm`` (an asset), a name on the Hugging Face hub, or a folder; with
            ``pretrained=False``, a model type of transformers, such as ``bert``.
        method: ``plain``, ``flooding``, ``r_drop``, ``ranmask`` or ``scrn``.
        method_options: Arguments of the method's class in :mod:`lightning_plugins.nn.ai_text`.
        pretrained: Start from the encoder's published weights.
        config: Overrides of the encoder's configuration, such as ``num_hidden_layers``.
        tokenizer: None for the encoder's; ``words`` hashes words and requires no vocabulary.
        max_length: Tokens of a window, including special tokens, at least 2.
        dropout: Dropout probability of the head, in [0, 1).
        train_embeddings: Train the encoder's token embeddings; False freezes them.
        mask_padding: See :class:`lightning_plugins.nn.ai_text.DetectorNetwork`.
        inference_noise: Number of noise draws of a score, at least 0.
        seed: Seed of the noise and the masks of a score.
        scoring_batch_size: Windows per forward pass during scoring.
        optimizer: Factory of the optimizer from the named parameters.
        lr_scheduler: Factory of the learning rate scheduler from the optimizer.

    Attributes:
        inference_noise: As given. It may be changed between two scores, like ``seed``.
        thresholds: float32 ``(2,)``, the scores that at most 1 % and 5 % of the human texts of the
            last validation exceeded; stored in the checkpoint. They are infinite before the first
            validation, so that a detector that is not calibrated labels no text as AI.
        window_thresholds: float32 ``(2,)``, the same for the windows of the human texts. A mean
            over windows varies less than one window, so the two differ for long texts.

    Raises:
        ValueError: An argument is outside its range.
        ImportError: transformers is not installed (raised by ``configure_model``).

    Example::

        detector = AITextDetector("minilm", "scrn", inference_noise=8)
        Trainer(max_epochs=2).fit(detector, datamodule=data)
        detector.score(["Was this written by a machine?"])
    """

    thresholds: Tensor
    window_thresholds: Tensor

    checkpoint_strings: ClassVar[CheckpointStrings] = {
        "encoder": frozenset({"minilm", "bert", "roberta", "distilbert", "electra", "deberta-v2"}),
        "tokenizer": frozenset({"minilm", "words"}),
        "method": WORD,
        "method_options": WORD,
        "config": WORD,
    }

    def __init__(
        self,
        encoder: str = "roberta-base",
        method: str = "scrn",
        method_options: dict[str, Any] | None = None,
        pretrained: bool = True,
        config: dict[str, Any] | None = None,
        tokenizer: str | None = None,
        max_length: int = 512,
        dropout: float = 0.1,
        train_embeddings: bool = True,
        mask_padding: bool = True,
        inference_noise: bool | int = False,
        seed: int = 0,
        scoring_batch_size: int = 32,
        optimizer: OptimizerCallable = lambda params: torch.optim.AdamW(
            params, lr=1e-4, weight_decay=0.0
        ),
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__()
        if method not in METHODS:
            raise ValueError(f"method={method!r}: expected one of {', '.join(METHODS)}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout}: expected a probability in [0, 1)")
        at_least = {
            "max_length": (max_length, 2),
            "inference_noise": (inference_noise, 0),
            "seed": (seed, 0),
            "scoring_batch_size": (scoring_batch_size, 1),
        }
        for name, (value, least) in at_least.items():
            if value < least:
                raise ValueError(f"{name}={value}: expected at least {least}")
        if not pretrained and tokenizer is None:
            raise ValueError(
                "tokenizer=None: an encoder from scratch has no tokenizer; set 'words', or the "
                "name or folder of a pretrained tokenizer"
            )
        try:
            self.method = METHODS[method](**(method_options or {}))
        except TypeError as error:
            raise ValueError(f"method_options={method_options}: {method}: {error}") from error
        self.save_hyperparameters(ignore=["optimizer", "lr_scheduler"])
        self.max_length = max_length
        self.inference_noise = inference_noise
        self.seed = seed
        self.scoring_batch_size = scoring_batch_size
        self.network: DetectorNetwork | None = None
        self.tokenizer: TextTokenizer | None = None
        self._optimizer = optimizer
        self._lr_scheduler = lr_scheduler
        for name in ("thresholds", "window_thresholds"):
            self.register_buffer(name, torch.full((len(FALSE_POSITIVE_RATES),), torch.inf))
        self.val_scores = DetectionMetrics("val")
        self.test_scores = DetectionMetrics("test", by_group=True)

    def configure_model(self) -> None:
        """Build the networks, once."""
        if self.network is not None:
            return
        options: Any = self.hparams
        encoder = build_encoder(options.encoder, options.pretrained, options.config or {})
        encoder.train()  # from_pretrained returns it in evaluation mode, without dropout
        if not options.train_embeddings:
            encoder.get_input_embeddings().requires_grad_(False)
        size = encoder.config.hidden_size
        reconstruction = self.method.reconstruction(size)
        self.network = DetectorNetwork(
            encoder, size, reconstruction, options.dropout, options.mask_padding
        )
        name = options.tokenizer or options.encoder
        self.tokenizer = build_tokenizer(name, encoder.config.vocab_size)

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Return the probabilities of AI ``(texts,)``, as :meth:`probabilities`."""
        return self.probabilities(texts)

    def score(self, texts: Sequence[str]) -> list[float]:
        """Return the probabilities of AI as a list, for RAID's ``run_detection``."""
        return self.probabilities(texts).tolist()

    @torch.no_grad()
    def probabilities(self, texts: Sequence[str], seed: int | None = None) -> Tensor:
        """Return the probabilities that texts are written by AI, float32 ``(texts,)`` on the CPU.

        Dropout is always off. The mode of the module and the global random generators are not
        changed.

        Args:
            texts: Texts of any length and script; they may be empty.
            seed: Seed of the noise and the masks; None for the module's ``seed``.
        """
        texts = list(texts)
        return self._scored(texts, self.seed if seed is None else seed)[0]

    def scan(self, texts: Sequence[str]) -> list[Scan]:
        """Return the scores of texts and of their windows (the latter without masked words)."""
        texts = list(texts)
        scores, windows, of_windows = self._with_windows(texts)
        thresholds = (self.thresholds.tolist(), self.window_thresholds.tolist())
        return scans_of(texts, scores.tolist(), windows, of_windows, *thresholds)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the method's loss of a batch; its passes are one forward pass of all copies."""
        labels = batch["label"]
        network, tokenizer = self._built()
        texts = batch["text"]
        if self.method.masked_share:
            # The key comes from torch's generator, so that a resumed run draws the same masks.
            key = int(torch.randint(2**31, ()))
            texts = [self._masked(text, key, place) for place, text in enumerate(texts)]
        windows = first_windows(self._windows(texts))
        input_ids, mask = padded(windows, tokenizer.pad_id, self.device)
        input_ids, mask = (x.repeat(self.method.passes, 1) for x in (input_ids, mask))
        epsilon = None
        if network.noise_dim is not None:
            epsilon = torch.randn(*input_ids.shape, network.noise_dim, device=self.device)
        terms = self.method.loss(network(input_ids, mask, epsilon), labels)
        self.log("train/loss", terms["loss"], prog_bar=True, batch_size=len(labels))
        parts = {f"train/{name}": value for name, value in terms.items() if name != "loss"}
        self.log_dict(parts, batch_size=len(labels))
        return terms["loss"]

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Add the scores of a batch and of its windows to the metrics."""
        labels = batch["label"]
        scores, windows, of_windows = self._with_windows(batch["text"])
        self.val_scores.update(scores.to(labels.device), batch)
        places = [window.text for window in windows]
        self.val_scores.update_windows(of_windows.to(labels.device), labels[places])

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Add the scores of a batch to the metrics."""
        scores = self.probabilities(batch["text"])
        self.test_scores.update(scores.to(batch["label"].device), batch)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics, and keep the thresholds."""
        thresholds = self.val_scores.finish(self)
        of_windows = self.val_scores.window_thresholds()
        # The sanity check reads too few texts; without human texts the threshold is NaN.
        if not self.trainer.sanity_checking and not thresholds.isnan().any():
            self.thresholds.copy_(thresholds)
            self.window_thresholds.copy_(of_windows)

    def on_test_epoch_end(self) -> None:
        """Log the metrics."""
        self.test_scores.finish(self)

    def predict_step(self, batch: Batch | list[str], batch_idx: int) -> list[Scan]:
        """Return the scans of a batch, with or without labels and ids."""
        if not isinstance(batch, dict):
            return self.scan(batch)
        scans = self.scan(batch["text"])
        ids = batch.get("id", [None] * len(scans))
        return [scan._replace(id=name) for scan, name in zip(scans, ids, strict=True)]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the thresholds of windows to a checkpoint of an earlier version."""
        unknown = torch.full((len(FALSE_POSITIVE_RATES),), torch.inf)
        checkpoint["state_dict"].setdefault("window_thresholds", unknown)

    def configure_optimizers(self) -> Any:
        """Return the optimizer, and its scheduler with the right interval."""
        return configure_optimizers(self, self._optimizer, self._lr_scheduler)

    def load_released(self, path: str) -> None:
        """Load the weights of a checkpoint published by the authors of arXiv 2406.01179.

        Args:
            path: Their ``pytorch_model.bin`` or ``model.safetensors``; see
                :func:`lightning_plugins.litmodels.ai_text.released_weights.released_state_dict`.

        Raises:
            ValueError: Weights are missing, or their shapes do not match this module's.
        """
        self.configure_model()
        network, _ = self._built()
        try:
            network.load_state_dict(released_state_dict(path))
        except RuntimeError as error:
            raise ValueError(
                f"path={path!r}: the weights do not match this detector: {error}"
            ) from error

    def _built(self) -> tuple[DetectorNetwork, TextTokenizer]:
        assert self.network is not None, "call configure_model() first, as a Trainer does"
        assert self.tokenizer is not None
        return self.network, self.tokenizer

    def _windows(self, texts: Sequence[str]) -> list[Window]:
        return self._built()[1].windows(texts, self.max_length)

    @torch.no_grad()
    def _scored(self, texts: list[str], seed: int) -> tuple[Tensor, list[Window], Tensor]:
        """Return the scores ``(texts,)``, and the windows with their scores ``(windows,)``."""
        if not texts:
            return torch.zeros(0), [], torch.zeros(0)
        windows, scores = self._window_scores(texts, seed)
        num_copies = windows[-1].text + 1
        copy_scores = mean_over_windows(scores, windows, num_copies)
        combined = self.method.combined(copy_scores.view(-1, len(texts)))
        return combined, windows, scores.mean(dim=0)

    @torch.no_grad()
    def _with_windows(self, texts: list[str]) -> tuple[Tensor, list[Window], Tensor]:
        """Return the same, with the windows of unmasked texts."""
        found, windows, scores = self._scored(texts, self.seed)
        if texts and self.method.masked_share and self.inference_noise:
            windows, draws = self._window_scores(texts, self.seed, masks=False)
            scores = draws.mean(dim=0)
        return found, windows, scores

    def _window_scores(
        self, texts: Sequence[str], seed: int, masks: bool = True
    ) -> tuple[list[Window], Tensor]:
        """Return windows and their scores ``(draws, windows)``.

        If the method masks words, each draw adds masked copies of all texts, scored without noise.
        """
        network, tokenizer = self._built()
        draws = int(self.inference_noise)
        if masks and draws and self.method.masked_share:
            texts = [self._masked(text, seed, draw) for draw in range(draws) for text in texts]
            draws = 0
        windows = self._windows(texts)
        score = WindowScorer(network, tokenizer.pad_id, self.scoring_batch_size, draws, seed)
        with evaluation_mode(network):
            return windows, score(windows, self.device)

    def _masked(self, text: str, *key: int) -> str:
        share = self.method.masked_share
        if not share:
            return text
        return mask_words(text, share, self._built()[1].mask_token, generator_of(*key, text))
