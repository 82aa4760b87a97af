"""DecentralizedStrategy in four real processes."""

import decentralized_trainers as harness
import pytest
import torch

from lightning_plugins.strategies.communication import Communication
from lightning_plugins.strategies.ledger import CommLedger
from lightning_plugins.strategies.schedule import Schedule
from lightning_plugins.strategies.topologies import Complete, RandomPull, Ring

AGENTS = 4
PLAIN = {"plain": True, "momentum": 0.9}
# Indices in the flat state: parameters, and running statistics of batch normalization.
TRAINED = [*range(72), *range(89, 116)]
STATISTICS = slice(72, 88)
never = Schedule(rate=0.0)
CASES = {
    "ddp": {"strategy": "ddp", "module": PLAIN, "trainer": {"use_distributed_sampler": False}},
    "complete": {"communication": Communication(Complete()), "module": PLAIN},
    "final merge": {"communication": Communication(Ring(), never)},
    "alone": {"communication": Communication(Ring(), never, final_merge=False)},
    "no merge": {"communication": Communication(RandomPull(1), final_merge=False)},
    "accumulated": {
        "communication": Communication(Ring(), Schedule(every_n_steps=2)),
        "trainer": {"accumulate_grad_batches": 3},
    },
    "shared": {"module": {"init_seed": None}},
    "apart": {"module": {"init_seed": None}, "strategy": {"shared_init": False}},
    "plain loader": {"module": {"data": "plain"}},
    "undivided loader": {
        "module": {"data": "plain"},
        "strategy": {"data": "user"},
        "trainer": {"max_epochs": 1},
    },
    "unequal": {
        "module": {"batches": [3, 5, 5, 4]},
        "strategy": {"data": "user"},
        "may_fail": True,
    },
    "max_time": {
        "communication": Communication(Ring(), never),
        "trainer": {"max_epochs": -1, "max_time": "00:00:00:01"},
    },
    "stream": {
        "module": {"data": "stream"},
        "communication": Communication(Ring(), Schedule(every_n_steps=5)),
    },
    "stream, window": {
        "module": {"data": "stream"},
        "communication": Communication(Ring(), Schedule("window", start=0.5, width=0.5)),
        "may_fail": True,
    },
    "stream, window, max_steps": {
        "module": {"data": "stream"},
        "communication": Communication(Ring(), Schedule("window", start=0.5, width=0.5)),
        "trainer": {"max_steps": 8},
    },
    "recalibrated": {
        "strategy": {"buffers": "recalibrate"},
        "communication": Communication(Ring(), never),
    },
    "local buffers": {
        "strategy": {"buffers": "local"},
        "communication": Communication(Ring(), never),
    },
    "averaged momentum": {
        "strategy": {"optimizer_state": "average"},
        "communication": Communication(Complete(), final_merge=False),
    },
    "reset momentum": {
        "strategy": {"optimizer_state": "reset"},
        "communication": Communication(Complete(), final_merge=False),
    },
    "by value": {
        "communication": Communication(Ring(), never),
        "strategy": {"merge_weights": "val/own"},
    },
    "by reduced value": {
        "communication": Communication(Ring(), never),
        "strategy": {"merge_weights": "val/accuracy"},
    },
    "by missing value": {"strategy": {"merge_weights": "val/f1"}, "may_fail": True},
    "uneven alone": {
        "module": {"data": "uneven"},
        "strategy": {"data": "user"},
        "communication": Communication(Ring(), never, final_merge=False),
    },
    "by samples": {
        "module": {"data": "uneven"},
        "strategy": {"data": "user", "merge_weights": "samples"},
        "communication": Communication(Ring(), never),
    },
    "bfloat16": {"strategy": {"wire": "bfloat16"}, "communication": Communication(Ring())},
}


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    results = harness.run_trainers(AGENTS, tmp_path_factory.mktemp("trainers"), CASES)
    assert None not in results
    return lambda case: [result[case] for result in results]


def weights(results, moment=None):
    return torch.stack([r["watched"][moment] if moment else r["weights"] for r in results])


def assert_all_equal(rows):
    assert all(torch.equal(row, rows[0]) for row in rows)


@pytest.mark.scale(plugin="DecentralizedStrategy", strategy="decentralized")
def test_averaging_all_agents_after_each_step_equals_ddp(ran):
    decentralized, ddp = weights(ran("complete")), weights(ran("ddp"))
    torch.testing.assert_close(decentralized, ddp, rtol=0, atol=1e-6)
    assert_all_equal(decentralized)


@pytest.mark.scale(plugin="DecentralizedStrategy", strategy="decentralized")
def test_agents_start_with_the_same_weights_and_end_merged(ran):
    results = ran("final merge")
    assert_all_equal(weights(results, "start"))
    assert_all_equal(weights(results))
    assert results[0]["global_step"] == 12
    # The merge is part of the last step, before the last validation.
    assert torch.equal(weights(results, "validation"), weights(results))


def test_without_a_final_merge_agents_end_with_different_weights(ran):
    ends = weights(ran("no merge"))
    assert not torch.equal(ends[0], ends[1])


def test_the_final_merge_is_the_mean_of_independently_trained_agents(ran):
    alone = weights(ran("alone")).mean(0)
    merged = weights(ran("final merge"))[0]
    torch.testing.assert_close(merged[TRAINED], alone[TRAINED], rtol=0, atol=1e-7)
    torch.testing.assert_close(merged[STATISTICS], alone[STATISTICS], rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("alone", "merged"), [("alone", "by value"), ("uneven alone", "by samples")]
)
def test_a_merge_can_weight_agents_by_samples_or_by_a_logged_value(ran, alone, merged):
    # The value of agent k is k + 1, and its batches have 2 (k + 1) samples.
    shares = torch.tensor([[0.1], [0.2], [0.3], [0.4]], dtype=torch.float64)
    expected = (shares * weights(ran(alone))).sum(0)
    found = weights(ran(merged))
    torch.testing.assert_close(found[0][TRAINED], expected[TRAINED], rtol=0, atol=1e-6)
    assert_all_equal(found)


def test_merge_weights_that_are_missing_or_equal_are_reported(ran):
    for result in ran("by missing value"):
        assert "agents [0, 1, 2, 3] have not logged a number of this name" in result["error"]
    told = ["the mean is uniform" in " ".join(r["warnings"]) for r in ran("by reduced value")]
    assert told == [True, False, False, False]


def test_gossip_follows_optimizer_steps_not_accumulated_batches(ran):
    results = ran("accumulated")
    # 6 batches in windows of 3, two epochs: 4 steps, rounds after steps 2 and 4, the last a merge.
    assert results[0]["global_step"] == 4
    ledger = CommLedger.merged(r["ledger"] for r in results)
    assert ledger.of(0, "gossip").rounds == 1
    assert ledger.of(0, "merge").messages == 2 * (AGENTS - 1)


def test_agents_copy_the_first_agents_weights_unless_shared_init_is_false(ran):
    shared, apart = weights(ran("shared"), "start"), weights(ran("apart"), "start")
    assert_all_equal(shared)
    assert torch.equal(apart[0], shared[0])
    assert not torch.equal(apart[1], shared[1])
    assert [any("start from different" in w for w in r["warnings"]) for r in ran("apart")] == [
        *(True, False, False, False)
    ]


def test_samples_of_a_plain_loader_are_split_among_agents(ran):
    seen = [set(result["seen"]) for result in ran("plain loader")]
    everything = set(harness.samples().tensors[0][:, 0].tolist())
    assert set.union(*seen) == everything
    assert len(ran("plain loader")[0]["seen"]) == 2 * harness.SAMPLES // AGENTS


def test_data_user_leaves_a_loader_undivided(ran):
    for result in ran("undivided loader"):
        assert len(result["seen"]) == harness.SAMPLES


def test_every_agent_validates_on_all_samples_and_metrics_are_means_over_agents(ran):
    results = ran("no merge")
    assert [r["validated"] for r in results] == [2 * harness.SAMPLES] * AGENTS
    assert results[0]["metrics"]["val/agent"] == pytest.approx(1.5)
    assert len({r["metrics"]["val/accuracy"] for r in results}) == 1
    assert len({r["metrics"]["val/loss"] for r in results}) == 1


def test_loaders_of_different_lengths_are_refused_with_the_lengths(ran):
    for result in ran("unequal"):
        assert "agent 0 has 3, agent 1 has 5, agent 2 has 5, agent 3 has 4" in result["error"]
        assert "trainer.limit_train_batches" in result["error"]


def test_a_run_without_a_known_end_is_merged_when_it_ends(ran):
    assert_all_equal(weights(ran("max_time")))


def test_a_loader_without_a_length_is_refused_only_if_the_schedule_requires_one(ran):
    assert_all_equal(weights(ran("stream")))
    assert_all_equal(weights(ran("stream, window, max_steps")))
    for result in ran("stream, window"):
        assert "the run has no known end; set trainer.max_steps" in result["error"]


def test_local_buffers_differ_after_the_merge_and_mixed_ones_do_not(ran):
    local, mixed = weights(ran("local buffers")), weights(ran("final merge"))
    assert not torch.equal(local[0][STATISTICS], local[1][STATISTICS])
    assert torch.equal(local[0][TRAINED], local[1][TRAINED])
    assert torch.equal(mixed[0][STATISTICS], mixed[1][STATISTICS])


def test_recalibrated_statistics_belong_to_the_merged_weights(ran):
    results = ran("recalibrated")
    assert_all_equal(weights(results))
    merged = harness.Classifier()
    torch.nn.utils.vector_to_parameters(
        torch.cat(
            [weights(results)[0][:56], weights(results)[0][56:72], weights(results)[0][89:]]
        ).float(),
        merged.parameters(),
    )
    # Each agent's 12 batches of 4 contain all of its samples twice.
    linear = merged.network[0]
    means = []
    for result in results:
        first_feature = torch.tensor(result["seen"])
        features = harness.samples().tensors[0]
        rows = [int((features[:, 0] == value).nonzero()[0]) for value in first_feature]
        means.append(linear(features[rows]).mean(0))
    expected = torch.stack(means).mean(0).detach().double()
    torch.testing.assert_close(weights(results)[0][72:80], expected, rtol=0, atol=1e-5)


def test_optimizer_state_is_averaged_or_reset_as_configured(ran):
    averaged = torch.stack([r["momentum"] for r in ran("averaged momentum")])
    assert_all_equal(averaged)
    kept = torch.stack([r["momentum"] for r in ran("no merge")])
    assert not torch.equal(kept[0], kept[1])
    for result in ran("reset momentum"):
        assert not result["momentum"].any()


def test_bfloat16_on_the_wire_halves_the_bytes(ran):
    narrow = CommLedger.merged(r["ledger"] for r in ran("bfloat16"))
    parameters_and_buffers = 56 + 16 + 27 + 16
    assert narrow.of(0, "gossip").bytes_sent == 11 * 2 * 2 * parameters_and_buffers
    assert_all_equal(weights(ran("bfloat16")))


@pytest.mark.parametrize("global_seed", [None, 3])
def test_one_agent_equals_plain_training_bit_for_bit(tmp_path, global_seed):
    cases = {"plain": {"strategy": "auto"}, "one": {}}
    cases = {name: {**case, "global_seed": global_seed} for name, case in cases.items()}
    (result,) = harness.run_trainers(1, tmp_path, cases)
    plain, one = result["plain"], result["one"]
    assert torch.equal(one["weights"], plain["weights"])
    assert torch.equal(one["momentum"], plain["momentum"])
    assert one["metrics"] == plain["metrics"]
    assert CommLedger.merged([one["ledger"]]).total("gossip", "merge").bytes_sent == 0
