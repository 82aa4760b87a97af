"""A detector of AI-generated text on any encoder."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor

from lightning_plugins.litmodels.ai_text.detection_metrics import (
    FALSE_POSITIVE_RATES,
    ReportedScores,
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
    mean_over_windows,
    padded,
    randomness_of,
    scans_of,
)
from lightning_plugins.nn.ai_text import METHODS, DetectorNetwork
from lightning_plugins.nn.module_state import evaluation_mode
from lightning_plugins.optimizers import configure_optimizers

Batch = dict[str, Any]


class AITextDetector(LightningModule):
    """Tells text of machines from text of people, by one of five methods of robust training.

    Batches are dictionaries with ``text``, a list of strings, and ``label``, int64 ``(batch,)``:
    0 human, 1 AI. Training takes the first ``max_length`` tokens of a text; a score is the mean
    over all windows of that length, weighted by their tokens. Scores do not depend on the texts
    beside them. The networks are made in ``configure_model``.

    ``inference_noise`` says what a method that answers at random does when it scores: ``False`` or
    0 takes no noise (SCRN decodes the mean, RanMask masks nothing), ``True`` or 1 draws once, as
    the code released with arXiv 2406.01179 does, ``k`` averages the probabilities of ``k`` draws,
    or counts their votes. The noise is a function of the seed and the text: a call with another
    ``seed`` draws afresh. A detector that answers with fresh noise misleads a greedy search, which
    is not the same as being right on what the search finds; measure both.

    Logged: ``train/loss`` and its parts, where a method has them: ``train/classification_loss``,
    ``train/calibration_loss``, ``train/reconstruction_loss``. Of validation and test: ``loss``
    (cross-entropy of the scores), ``accuracy`` at 0.5, ``auroc``, ``calibration_error`` (15 bins),
    ``tpr_at_1_percent_fpr`` and ``tpr_at_5_percent_fpr`` behind ``val/`` and ``test/``. The
    thresholds of the two are those of the same texts. Of the test part, where batches have
    ``domain`` or ``generator``, also ``test/auroc_of_domain/NAME`` and
    ``test/auroc_of_generator/NAME``.

    Args:
        encoder: ``minilm`` (an asset), or a name on the Hugging Face hub or a folder; with
            ``pretrained=False`` a model type of transformers, such as ``bert``.
        method: ``plain``, ``flooding``, ``r_drop``, ``ranmask`` or ``scrn``.
        method_options: arguments of the method's class in :mod:`lightning_plugins.nn.ai_text`.
        pretrained: start from the encoder's published weights.
        config: arguments of the encoder's configuration that differ, such as
            ``num_hidden_layers``.
        tokenizer: None takes the encoder's; ``words`` hashes words and needs no vocabulary.
        max_length: tokens of a window, special ones included, at least 2.
        dropout: of the head, in [0, 1).
        train_embeddings: False keeps the encoder's token embeddings as they are.
        mask_padding: see :class:`lightning_plugins.nn.ai_text.DetectorNetwork`.
        inference_noise: draws of the noise in a score, at least 0.
        seed: of the noise and the masks of a score.
        scoring_batch_size: windows a forward pass of a score.
        optimizer: builds the optimizer from named parameters.
        lr_scheduler: builds the schedule from the optimizer.

    Attributes:
        inference_noise: as given; may be set between two scores, as ``seed``.
        thresholds: float32 ``(2,)``, scores above which at most 1 % and 5 % of the human texts of
            the last validation lay; stored in the checkpoint. Infinite before one: nobody is
            accused by a detector that was not calibrated.

    Raises:
        ValueError: an argument outside its range.
        ImportError: without transformers, when the networks are made.

    Example::

        detector = AITextDetector("minilm", "scrn", inference_noise=8)
        Trainer(max_epochs=2).fit(detector, datamodule=data)
        detector.score(["Was this written by a machine?"])
    """

    thresholds: Tensor

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
                "tokenizer=None: an encoder from scratch has none; give 'words', or the name or "
                "folder of a pretrained one"
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
        self.register_buffer("thresholds", torch.full((len(FALSE_POSITIVE_RATES),), torch.inf))
        self.val_scores = ReportedScores("val")
        self.test_scores = ReportedScores("test", by_group=True)

    def configure_model(self) -> None:
        """Make the networks, once."""
        if self.network is not None:
            return
        options: Any = self.hparams
        encoder = build_encoder(options.encoder, options.pretrained, options.config or {})
        encoder.train()  # from_pretrained leaves it in evaluation mode, without dropout
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
        """Probabilities of AI ``(texts,)``, as :meth:`probabilities`."""
        return self.probabilities(texts)

    def score(self, texts: Sequence[str]) -> list[float]:
        """Probabilities that texts are written by AI: the interface of RAID's ``run_detection``."""
        return self.probabilities(texts).tolist()

    @torch.no_grad()
    def probabilities(self, texts: Sequence[str], seed: int | None = None) -> Tensor:
        """Probabilities that texts are written by AI, float32 ``(texts,)`` on the CPU.

        Dropout is off, whatever the mode of the module; the mode and the global random generators
        are left as they were.

        Args:
            texts: of any length and script, empty ones included.
            seed: of the noise and the masks; None takes the module's.
        """
        texts = list(texts)
        if not texts:
            return torch.zeros(0)
        windows, scores = self._window_scores(texts, self.seed if seed is None else seed)
        num_copies = windows[-1].text + 1
        of_copies = mean_over_windows(scores, windows, num_copies)
        return self.method.combined(of_copies.view(-1, len(texts)))

    def scan(self, texts: Sequence[str]) -> list[Scan]:
        """Scores of texts, and of their windows (without masked words)."""
        texts = list(texts)
        if not texts:
            return []
        with torch.no_grad():
            windows, scores = self._window_scores(texts, self.seed, masks=False)
        of_windows, thresholds = scores.mean(dim=0), self.thresholds.tolist()
        return scans_of(texts, self.score(texts), windows, of_windows, thresholds)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The method's loss of a batch; its passes are one forward pass of all copies."""
        labels = batch["label"]
        network, tokenizer = self._parts()
        texts = batch["text"]
        if self.method.masked_share:
            # torch's generator gives the key, so that a resumed run draws the same masks.
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
        """Keep the scores of a batch."""
        self.val_scores.update(self._scores_of(batch), batch)

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Keep the scores of a batch."""
        self.test_scores.update(self._scores_of(batch), batch)

    def on_validation_epoch_end(self) -> None:
        """Log what the scores are worth; keep the thresholds."""
        thresholds = self.val_scores.finish(self)
        # The sanity check sees a few texts; without human ones there is no threshold.
        if not self.trainer.sanity_checking and not thresholds.isnan().any():
            self.thresholds.copy_(thresholds)

    def on_test_epoch_end(self) -> None:
        """Log what the scores are worth."""
        self.test_scores.finish(self)

    def predict_step(self, batch: Batch | list[str], batch_idx: int) -> list[Scan]:
        """Scans of texts, with or without labels."""
        return self.scan(batch["text"] if isinstance(batch, dict) else batch)

    def configure_optimizers(self) -> Any:
        """The optimizer, and its schedule with the interval it counts in."""
        return configure_optimizers(self, self._optimizer, self._lr_scheduler)

    def load_released(self, path: str) -> None:
        """Take the weights of a checkpoint published by the authors of arXiv 2406.01179.

        Args:
            path: of their ``pytorch_model.bin`` or ``model.safetensors``; see
                :func:`lightning_plugins.litmodels.ai_text.released_weights.released_state_dict`.

        Raises:
            ValueError: weights are missing, or are of other shapes than this module's.
        """
        self.configure_model()
        network, _ = self._parts()
        try:
            network.load_state_dict(released_state_dict(path))
        except RuntimeError as error:
            raise ValueError(f"path={path!r}: not this detector's: {error}") from error

    def _parts(self) -> tuple[DetectorNetwork, TextTokenizer]:
        assert self.network is not None, "call configure_model() first, as a Trainer does"
        assert self.tokenizer is not None
        return self.network, self.tokenizer

    def _windows(self, texts: Sequence[str]) -> list[Window]:
        return self._parts()[1].windows(texts, self.max_length)

    def _window_scores(
        self, texts: Sequence[str], seed: int, masks: bool = True
    ) -> tuple[list[Window], Tensor]:
        """Windows and their scores ``(draws, windows)``.

        Draws that mask words make copies of the texts, one after the other, scored without noise.
        """
        network, tokenizer = self._parts()
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
        return mask_words(text, share, self._parts()[1].mask_token, randomness_of(*key, text))

    def _scores_of(self, batch: Batch) -> Tensor:
        return self.probabilities(batch["text"]).to(batch["label"].device)
