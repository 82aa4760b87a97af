"""Scores, thresholds, logging and training of AITextDetector."""

import json
import random
from functools import partial

import pytest
import torch
from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from marker_corpus import (
    SMALL_SCRN,
    TINY,
    MarkerData,
    batch_of,
    marker_corpus,
    quiet_trainer,
    tiny_detector,
)
from torch.utils.data import DataLoader
from torchmetrics.functional.classification import binary_auroc, binary_calibration_error

from lightning_plugins.callbacks import AdversarialTextEvaluation, ExactResume
from lightning_plugins.litmodels.ai_text import AITextDetector, ScanWriter
from lightning_plugins.metrics import threshold_at_fpr

METHODS = {
    "plain": {},
    "flooding": {"level": 0.01},
    "r_drop": {},
    "ranmask": {},
    "scrn": SMALL_SCRN,
}
FAST = {"optimizer": partial(torch.optim.Adam, lr=0.01)}
TEXTS = [
    "river stone",
    "moreover the tapestry of a winter garden is long, and much longer than the first text is",
    "",
    "καλημέρα κόσμε, 你好 🌍",
    "apple " * 200,
]


@pytest.fixture(params=METHODS)
def detector(request):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        options = METHODS[request.param]
        return tiny_detector(request.param, method_options=options, inference_noise=1)


def test_scores_do_not_depend_on_the_batch_or_on_padding(detector):
    alone = [detector.score([text])[0] for text in TEXTS]
    assert detector.score(TEXTS) == pytest.approx(alone, abs=1e-5)
    assert detector.score(TEXTS[::-1]) == pytest.approx(alone[::-1], abs=1e-5)
    assert all(0 <= score <= 1 for score in alone)


def test_without_mask_padding_scores_depend_on_padding_as_in_the_released_code():
    torch.manual_seed(0)
    detector = tiny_detector("scrn", mask_padding=False)
    alone = [detector.score([text])[0] for text in TEXTS]
    assert detector.score(TEXTS) != pytest.approx(alone, abs=1e-4)


def test_scoring_in_training_mode_uses_no_dropout_and_changes_no_state(detector):
    detector.train()
    state = torch.get_rng_state()
    python_state = random.getstate()
    assert detector.score(TEXTS) == detector.score(TEXTS)
    assert detector.network.training
    assert detector.network.head.training
    assert torch.equal(torch.get_rng_state(), state)
    assert random.getstate() == python_state


def test_scores_depend_on_the_seed_only_with_noise():
    torch.manual_seed(0)
    off, on = tiny_detector("scrn"), tiny_detector("scrn", inference_noise=1)
    on.load_state_dict(off.state_dict())
    assert torch.equal(off.probabilities(TEXTS, seed=1), off.probabilities(TEXTS, seed=2))
    assert not torch.equal(on.probabilities(TEXTS, seed=1), on.probabilities(TEXTS, seed=2))
    assert torch.equal(on.probabilities(TEXTS, seed=1), on.probabilities(TEXTS, seed=1))


def test_inference_noise_k_averages_k_draws():
    torch.manual_seed(0)
    one = tiny_detector("scrn", inference_noise=1)
    many = tiny_detector("scrn", inference_noise=100)
    many.load_state_dict(one.state_dict())
    draws = torch.stack([one.probabilities(TEXTS[:2], seed=seed) for seed in range(100)])
    error = draws.std(dim=0) * (2 / 100) ** 0.5
    difference = many.probabilities(TEXTS[:2], seed=1) - draws.mean(dim=0)
    assert (difference.abs() < 4 * error).all()
    assert (draws.std(dim=0) > 0).all()


def test_the_score_of_a_long_text_is_the_mean_of_its_windows_weighted_by_tokens():
    torch.manual_seed(0)
    detector = tiny_detector()
    words = [*marker_corpus(1, length=40)[0]["text"].split(), *["moreover"] * 31, *["cloud"] * 10]
    first, second, last = words[:31], words[31:62], words[62:]
    scores = detector.score([" ".join(part) for part in (first, second, last)])
    weights = [len(part) + 1 for part in (first, second, last)]  # and the start token
    expected = sum(w * s for w, s in zip(weights, scores, strict=True)) / sum(weights)
    assert len(last) > 0
    assert detector.score([" ".join(words)])[0] == pytest.approx(expected, abs=1e-5)


def test_the_two_passes_of_training_are_one_forward_pass_of_two_copies(monkeypatch):
    torch.manual_seed(0)
    detector = tiny_detector("scrn")
    detector.log = detector.log_dict = lambda *args, **kwargs: None
    calls = []
    detector.network.register_forward_hook(lambda module, inputs, output: calls.append(inputs))
    samples = marker_corpus(4)
    batch = {"text": [s["text"] for s in samples], "label": torch.tensor([0, 1, 0, 1])}
    loss = detector.training_step(batch, 0)
    ((input_ids, _, epsilon),) = calls
    assert torch.equal(*input_ids.chunk(2))
    assert not torch.equal(*epsilon.chunk(2))
    loss.backward()
    unused = [n for n, p in detector.network.named_parameters() if p.grad is None]
    assert not unused  # DDP raises an error for unused parameters


def losses_of(batch, method):
    """Return a detector after some steps on the marker corpus, and the logged names."""
    torch.manual_seed(0)
    detector = tiny_detector(method, method_options=METHODS[method])
    logged = {}
    detector.log = lambda name, value, **_: logged.update({name: value})
    detector.log_dict = lambda values, **_: logged.update(values)
    optimizer = torch.optim.Adam(detector.parameters(), lr=0.01)
    samples, generator = marker_corpus(256), torch.Generator().manual_seed(0)
    # SCRN needs more steps, because it first has to learn a small variance.
    for _ in range(120 if method == "scrn" else 60):
        chosen = torch.randint(len(samples), (batch,), generator=generator)
        loss = detector.training_step(batch_of([samples[i] for i in chosen]), 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return detector, set(logged)


@pytest.mark.parametrize(
    ("method", "terms"),
    [
        ("plain", set()),
        ("flooding", {"classification"}),
        ("r_drop", {"classification", "calibration"}),
        ("ranmask", set()),
        ("scrn", {"classification", "calibration", "reconstruction"}),
    ],
)
def test_each_method_learns_the_markers_and_logs_its_losses(method, terms):
    detector, logged = losses_of(16, method)
    assert logged == {"train/loss"} | {f"train/{term}_loss" for term in terms}
    samples = batch_of(marker_corpus(seed=1))
    for noise in (False, True, 5):
        detector.inference_noise = noise
        scores = detector.probabilities(samples["text"])
        assert binary_auroc(scores, samples["label"]) > 0.95, noise


def test_runs_with_the_same_seed_are_equal_and_with_another_seed_differ(tmp_path):
    def trained(seed):
        seed_everything(seed, verbose=False)
        module = AITextDetector(method="scrn", method_options=SMALL_SCRN, **TINY, **FAST)
        quiet_trainer(tmp_path, max_steps=2, limit_val_batches=0).fit(module, MarkerData())
        return module.probabilities(TEXTS)

    assert torch.equal(trained(0), trained(0))
    assert not torch.equal(trained(0), trained(1))


@pytest.mark.parametrize("method", ["ranmask", "scrn"])
def test_an_interrupted_run_resumes_bit_for_bit(tmp_path, method):
    def run(folder, ckpt_path=None):
        seed_everything(0 if ckpt_path is None else 99, verbose=False)
        module = AITextDetector(method=method, method_options=METHODS[method], **TINY, **FAST)
        keep = ModelCheckpoint(folder, filename="{step}", every_n_train_steps=1, save_top_k=-1)
        trainer = quiet_trainer(
            tmp_path, callbacks=[ExactResume(), keep], enable_checkpointing=True, max_epochs=2
        )
        trainer.fit(module, datamodule=MarkerData(), ckpt_path=ckpt_path, weights_only=True)
        return module

    whole = run(tmp_path / "whole").state_dict()
    resumed = run(tmp_path / "resumed", tmp_path / "whole/step=3.ckpt").state_dict()
    for name, weight in whole.items():
        assert torch.equal(resumed[name], weight), name


def test_the_thresholds_of_the_validation_are_stored_in_the_checkpoint(tmp_path):
    seed_everything(0, verbose=False)
    data = MarkerData()
    module = AITextDetector(method="plain", **TINY, **FAST)
    assert module.thresholds.isinf().all()
    module.configure_model()
    assert "no threshold" in module.scan(["stone"])[0].verdict
    trainer = quiet_trainer(tmp_path)
    trainer.fit(module, datamodule=data)
    human = [s["text"] for s in marker_corpus(seed=1) if s["label"] == 0]
    scores = module.probabilities(human)
    for threshold, rate in zip(module.thresholds, (0.01, 0.05), strict=True):
        torch.testing.assert_close(threshold, threshold_at_fpr(scores, rate))
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    loaded = AITextDetector.load_from_checkpoint(tmp_path / "run.ckpt", weights_only=True)
    assert torch.equal(loaded.thresholds, module.thresholds)
    assert torch.equal(loaded.window_thresholds, module.window_thresholds)
    assert loaded.score(TEXTS) == module.score(TEXTS)
    earlier = torch.load(tmp_path / "run.ckpt", weights_only=True)
    del earlier["state_dict"]["window_thresholds"]
    torch.save(earlier, tmp_path / "earlier.ckpt")
    loaded = AITextDetector.load_from_checkpoint(tmp_path / "earlier.ckpt", weights_only=True)
    assert loaded.window_thresholds.isinf().all()


@pytest.mark.parametrize("method", ["plain", "ranmask"])
def test_windows_have_thresholds_of_their_own(method, tmp_path):
    module = tiny_detector(method, inference_noise=2)
    corpus = marker_corpus(40)
    for place, one in enumerate(corpus):
        one["text"] = " ".join([one["text"]] * (1 + place % 9))  # up to several windows
    trainer = quiet_trainer(tmp_path)
    trainer.validate(module, DataLoader(corpus, batch_size=7), verbose=False)
    scans = module.scan([one["text"] for one in corpus])
    human = [scan for scan, one in zip(scans, corpus, strict=True) if one["label"] == 0]
    scores = torch.tensor([window.score for scan in human for window in scan.windows])
    assert len(scores) > len(human)
    for threshold, rate in zip(module.window_thresholds, (0.01, 0.05), strict=True):
        torch.testing.assert_close(threshold, threshold_at_fpr(scores, rate))
    low = module.window_thresholds[1]
    for window in (window for scan in scans for window in scan.windows):
        assert (window.above is not None) == (window.score > low)


def test_test_metrics_are_computed_over_all_dataloaders(tmp_path):
    module = tiny_detector()
    parts = [marker_corpus(seed=2), marker_corpus(count=20, seed=3)]
    loaders = [DataLoader(part, batch_size=16) for part in parts]
    trainer = quiet_trainer(tmp_path)
    trainer.test(module, loaders, verbose=False)
    found = {name: value.item() for name, value in trainer.callback_metrics.items()}
    for rate in (1, 5):
        name = f"test/tpr_at_{rate}_percent_fpr"
        assert 0 <= found.pop(f"{name}_low") <= found[name] <= found.pop(f"{name}_high") <= 1
    batch = batch_of(parts[0] + parts[1])
    scores, labels = module.probabilities(batch["text"]), batch["label"]
    human, machine = scores[labels == 0], scores[labels == 1]
    expected = {
        "test/loss": torch.nn.functional.binary_cross_entropy(scores, labels.float()),
        "test/accuracy": ((scores > 0.5) == (labels == 1)).float().mean(),
        "test/auroc": binary_auroc(scores, labels),
        "test/calibration_error": binary_calibration_error(scores, labels),
        "test/tpr_at_1_percent_fpr": (machine > threshold_at_fpr(human, 0.01)).float().mean(),
        "test/tpr_at_5_percent_fpr": (machine > threshold_at_fpr(human, 0.05)).float().mean(),
    }
    assert found == {name: pytest.approx(x.item(), abs=1e-5) for name, x in expected.items()}


def test_auroc_compares_within_a_domain_and_a_generator_with_all_human_texts(tmp_path):
    module = tiny_detector()
    samples = [
        sample | {"domain": "ab"[place % 3 > 0], "generator": ("human", "m")[sample["label"]]}
        for place, sample in enumerate(marker_corpus(seed=2))
    ]
    trainer = quiet_trainer(tmp_path)
    trainer.test(module, DataLoader(samples, batch_size=16), verbose=False)
    batch = batch_of(samples)
    scores, labels = module.probabilities(batch["text"]), batch["label"]
    of_a = torch.tensor([sample["domain"] == "a" for sample in samples])
    found = {name: value.item() for name, value in trainer.callback_metrics.items()}
    grouped = {name for name in found if "auroc_of" in name}
    expected = {
        "test/auroc_of_domain/a": binary_auroc(scores[of_a], labels[of_a]),
        "test/auroc_of_domain/b": binary_auroc(scores[~of_a], labels[~of_a]),
        "test/auroc_of_generator/m": binary_auroc(scores, labels),
    }
    assert grouped == set(expected)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value.item(), abs=1e-5)


def test_predict_prints_and_writes_the_scores_of_each_text_and_its_windows(tmp_path, capsys):
    module = tiny_detector()
    module.thresholds.copy_(torch.tensor([0.0, 0.0]))
    trainer = quiet_trainer(tmp_path, callbacks=[ScanWriter(str(tmp_path / "scans"))])
    (scans,) = trainer.predict(module, DataLoader(TEXTS, batch_size=len(TEXTS)))
    assert [scan.score for scan in scans] == pytest.approx(module.score(TEXTS), abs=1e-6)
    *_, last = scans
    assert len(last.windows) == 7  # 200 words, 31 per window
    parts = [last.text[window.start : window.end] for window in last.windows]
    assert [window.score for window in last.windows] == pytest.approx(module.score(parts), abs=1e-5)
    assert last.verdict == "AI, at 1 % false positives (threshold 0.000)"
    shown = capsys.readouterr().out
    assert shown.count("\n  ") == sum(len(scan.windows) for scan in scans)
    lines = (tmp_path / "scans/scans.jsonl").read_text().splitlines()
    assert [json.loads(line)["score"] for line in lines] == [scan.score for scan in scans]


def test_attacks_during_a_test_run_draw_new_noise(tmp_path):
    torch.manual_seed(0)
    module = tiny_detector("scrn", inference_noise=True)
    asked, plain = [], module.probabilities
    module.probabilities = lambda texts, seed=None: asked.append(seed) or plain(texts, seed)
    attack = AdversarialTextEvaluation(num_samples=4, label=None, fresh_draws=3)
    trainer = quiet_trainer(tmp_path, callbacks=[attack])
    trainer.test(module, DataLoader(marker_corpus(8), batch_size=4), verbose=False)
    found = trainer.callback_metrics
    assert 0 <= found["attack/accuracy_under_attack"] <= found["attack/original_accuracy"] <= 1
    assert 0 <= found["attack/accuracy_under_fresh_noise"] <= 1
    seeds = [seed for seed in asked if seed is not None]
    assert len(set(seeds)) == len(seeds) > 3


def test_train_embeddings_false_freezes_the_embeddings(tmp_path):
    module = AITextDetector(method="plain", train_embeddings=False, **TINY, **FAST)
    module.configure_model()
    before = module.network.encoder.get_input_embeddings().weight.clone()
    quiet_trainer(tmp_path, max_steps=2).fit(module, datamodule=MarkerData())
    assert torch.equal(module.network.encoder.get_input_embeddings().weight, before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "magic"}, "method='magic'.*ranmask"),
        ({"method_options": {"levl": 1}}, "method_options=.*levl"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"max_length": 1}, "max_length=1"),
        ({"inference_noise": -1}, "inference_noise=-1"),
        ({"scoring_batch_size": 0}, "scoring_batch_size=0"),
        ({"seed": -1}, "seed=-1"),
        ({"pretrained": False}, "tokenizer=None"),
    ],
)
def test_the_error_names_an_argument_outside_its_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        AITextDetector(**arguments)
