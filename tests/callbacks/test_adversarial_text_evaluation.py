"""Attacks within a run, compared with direct calls of the same attacks."""

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from lightning_plugins.attacks.text import DeepWordBug, FreshNoise, attack_texts, still_misled
from lightning_plugins.callbacks.adversarial_text_evaluation import AdversarialTextEvaluation
from lightning_plugins.metrics import AttackScores

SAMPLES = [
    {"text": text, "label": label}
    for text, label in [
        ("moreover a river of stone", 1),
        ("a river of stone", 0),
        ("moreover we delve into rivers", 1),
        ("delve moreover tapestry moreover delve cloud", 1),
        ("a garden", 1),
    ]
]


class MarkerDetector(LightningModule):
    """Counts marker words; noise of a given size is a function of the seed and the text."""

    def __init__(self, noise=0.0):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.noise = noise

    def probabilities(self, texts, seed=0):
        scores = []
        for text in texts:
            generator = torch.Generator().manual_seed(seed + len(text))
            odds = 2.0 * sum(text.count(w) for w in ("moreover", "delve", "tapestry")) - 1
            scores.append(odds + self.noise * torch.randn((), generator=generator).item())
        return torch.tensor(scores).sigmoid()

    def training_step(self, batch, batch_idx):
        return self.weight.square().sum()

    def validation_step(self, batch, batch_idx):
        pass

    def test_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def logged(callback, module, loop="test", samples=SAMPLES):
    trainer = Trainer(
        accelerator="cpu",
        callbacks=[callback],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        max_epochs=1,
    )
    loader = DataLoader(samples, batch_size=2)
    arguments = {"fit": (loader, loader)}.get(loop, (loader,))
    getattr(trainer, loop)(module, *arguments)
    metrics = trainer.callback_metrics.items()
    return {k.removeprefix("attack/"): v.item() for k, v in metrics if k.startswith("attack/")}


def by_hand(samples, noise=0.0, noise_samples=1):
    detector = MarkerDetector(noise).probabilities
    texts, labels = zip(*[(s["text"], s["label"]) for s in samples], strict=True)
    results = attack_texts(DeepWordBug(), FreshNoise(detector, noise_samples), texts, labels)
    metric = AttackScores()
    metric.update(results)
    found = {name: value.item() for name, value in metric.compute().items()}
    misled = still_misled(results, detector)
    return found | {"accuracy_under_fresh_noise": 1 - sum(misled) / len(misled)}


@pytest.mark.scale(plugin="AdversarialTextEvaluation", strategy="one device")
@pytest.mark.parametrize(
    ("loop", "stage"), [("test", "test"), ("validate", "validate"), ("fit", "validate")]
)
def test_it_logs_the_attack_on_the_texts_of_the_selected_class(loop, stage):
    found = logged(AdversarialTextEvaluation(stage=stage), MarkerDetector(), loop)
    assert found == pytest.approx(by_hand([s for s in SAMPLES if s["label"] == 1]))
    assert found["original_accuracy"] == 0.75
    assert found["accuracy_under_attack"] == found["accuracy_under_fresh_noise"]


def test_only_the_selected_loop_is_attacked():
    assert logged(AdversarialTextEvaluation(stage="validate"), MarkerDetector()) == {}


def test_both_classes_and_fewer_texts_can_be_selected():
    callback = AdversarialTextEvaluation(label=None, num_samples=3)
    assert logged(callback, MarkerDetector()) == pytest.approx(by_hand(SAMPLES[:3]))


def test_each_query_draws_new_noise_and_the_expectation_averages_it():
    ai = [s for s in SAMPLES if s["label"] == 1]
    for samples in (1, 20):
        callback = AdversarialTextEvaluation(noise_samples=samples)
        found = logged(callback, MarkerDetector(noise=3.0))
        assert found == pytest.approx(by_hand(ai, 3.0, samples), nan_ok=True)


def test_a_second_run_of_one_callback_starts_without_the_first_texts():
    callback, module = AdversarialTextEvaluation(), MarkerDetector()
    assert logged(callback, module) == logged(callback, module)


def test_a_module_without_probabilities_is_refused():
    class Silent(MarkerDetector):
        probabilities = None

    with pytest.raises(ValueError, match=r"Silent has no method probabilities"):
        logged(AdversarialTextEvaluation(), Silent())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"attack": "magic"}, "attack='magic'.*pruthi"),
        ({"attack_options": {"max_querys": 1}}, "attack_options=.*max_querys"),
        ({"attack_options": {"max_queries": 0}}, "max_queries=0"),
        ({"stage": "fit"}, "stage='fit'"),
        ({"label": 2}, "label=2"),
        ({"num_samples": 0}, "num_samples=0"),
        ({"noise_samples": 0}, "noise_samples=0"),
        ({"fresh_draws": 0}, "fresh_draws=0"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_a_wrong_argument_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        AdversarialTextEvaluation(**arguments)
