"""MergedEvaluation in two real processes, against the mean of the saved weights."""

import decentralized_trainers as harness
import pytest
import torch
from lightning.pytorch import Callback
from torch.nn.functional import cross_entropy

from lightning_plugins.callbacks import CommunicationSchedule, MergedEvaluation
from lightning_plugins.strategies.ledger import CommLedger

ALONE = {"rate": 0.0, "final_merge": False}


def apart():
    return CommunicationSchedule(**ALONE)


class StopAtValues(Callback):
    """Checks that a callback after it can monitor a value of the merged model."""

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            assert "val/loss_merged" in trainer.callback_metrics


CASES = {
    "plain": {
        "module": {"plain": True},
        "callbacks": [apart(), MergedEvaluation(), StopAtValues()],
    },
    "plain, not measured": {"module": {"plain": True}, "callbacks": [apart()]},
    "normalized": {"callbacks": [apart(), MergedEvaluation()]},
    "normalized, not measured": {"callbacks": [apart()]},
    "every third": {"callbacks": [apart(), MergedEvaluation(every_n_validations=3)]},
    "another metric": {"callbacks": [apart(), MergedEvaluation("val/nothing")], "may_fail": True},
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    results = harness.run_trainers(2, tmp_path_factory.mktemp("merged"), CASES)
    assert None not in results
    return lambda case: [result[case] for result in results]


def network_with(flat, plain):
    module = harness.Classifier(plain=plain)
    state, taken = module.network.state_dict(), 0
    for name, value in state.items():
        state[name] = flat[taken : taken + value.numel()].view(value.shape).to(value.dtype)
        taken += value.numel()
    module.network.load_state_dict(state)
    return module.network.eval()


@pytest.mark.scale(plugin="MergedEvaluation", strategy="decentralized")
def test_it_reports_the_metrics_of_the_mean_of_the_agents(ran):
    results = ran("plain")
    ends = torch.stack([result["weights"] for result in results])
    features, labels = harness.samples().tensors
    with torch.no_grad():
        merged = network_with(ends.mean(0), plain=True)(features)
        local = [network_with(end, plain=True)(features) for end in ends]
    accuracies = [(logits.argmax(1) == labels).float().mean().item() for logits in (merged, *local)]
    metrics = results[0]["metrics"]
    assert metrics["val/accuracy_merged"] == pytest.approx(accuracies[0], abs=1e-6)
    assert metrics["val/accuracy_local_mean"] == pytest.approx(sum(accuracies[1:]) / 2, abs=1e-6)
    assert metrics["mergeability_gap"] == pytest.approx(
        accuracies[0] - sum(accuracies[1:]) / 2, abs=1e-6
    )
    loss = cross_entropy(merged, labels).item()
    assert metrics["val/loss_merged"] == pytest.approx(loss, abs=1e-5)
    distance = ((ends - ends.mean(0)) ** 2).sum(1).mean().item()
    assert metrics["consensus_distance"] == pytest.approx(distance, rel=1e-5)


@pytest.mark.parametrize("case", ["plain", "normalized"])
def test_measuring_does_not_change_training_by_a_bit(ran, case):
    for one, other in zip(ran(case), ran(f"{case}, not measured"), strict=True):
        assert torch.equal(one["weights"], other["weights"])
        assert one["metrics"]["val/loss"] == other["metrics"]["val/loss"]


def test_its_bytes_are_recorded_as_measurement(ran):
    ledger = CommLedger.merged(result["ledger"] for result in ran("plain"))
    parameters = 56 + 27
    assert ledger.of(0, "measurement").bytes_sent >= 2 * 4 * parameters
    assert ledger.total("gossip", "merge").bytes_sent == 0


def test_batch_norm_statistics_are_re_estimated_for_the_merged_weights(ran):
    results = ran("normalized")
    means = torch.stack([result["weights"] for result in results]).mean(0)
    network = network_with(means, plain=False)
    features, labels = harness.samples().tensors
    with torch.no_grad():
        # Each agent's last 24 batches of 4 contain its half of the samples twice.
        hidden = network[0](features)
        network[1].running_mean.copy_(hidden.mean(0))
        logits_spread = torch.stack(
            [
                network[0](features[order]).view(-1, 4, 8).var(1).mean(0)
                for order in (torch.randperm(96), torch.randperm(96), torch.randperm(96))
            ]
        ).mean(0)
        network[1].running_var.copy_(logits_spread)
        expected = cross_entropy(network(features), labels).item()
    # The composition of batches is random, so the variances agree only approximately.
    assert results[0]["metrics"]["val/loss_merged"] == pytest.approx(expected, rel=0.05)


def test_a_metric_that_is_not_logged_is_an_error(ran):
    error = ran("another metric")[0]["error"]
    assert "metric='val/nothing': validation_step logs val/accuracy, val/agent, val/loss" in error


def test_it_measures_in_every_nth_validation(ran):
    once = CommLedger.merged(result["ledger"] for result in ran("every third"))
    always = CommLedger.merged(result["ledger"] for result in ran("normalized"))
    assert once.of(0, "measurement").rounds * 2 == always.of(0, "measurement").rounds


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="every_n_validations=0: expected at least 1"):
        MergedEvaluation(every_n_validations=0)
    with pytest.raises(ValueError, match="calibration_batches=0: expected at least 1"):
        MergedEvaluation(calibration_batches=0)
