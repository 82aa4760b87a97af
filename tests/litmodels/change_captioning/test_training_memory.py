"""The memory of a training step by part, against counts of parameters and a measured step."""

import importlib.util
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")

from lightning_plugins.litmodels.change_captioning.training_memory import (
    TrainingMemory,
    training_memory,
)

BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "captioning_memory.py"


def total(memory):
    return sum(memory.values(), TrainingMemory())


def test_fsdp2_divides_the_states_and_the_logits_are_those_of_the_targets():
    ddp = training_memory("0.5b", "ddp")
    parameters = 893.7e6 + 63.8e6  # without the parts that are not trained
    assert total(ddp).weights == pytest.approx(4 * parameters, rel=2e-3)
    assert total(ddp).optimizer == pytest.approx(8 * parameters, rel=2e-3)
    shards = training_memory("0.5b", "fsdp2", ranks=8)
    assert total(shards).optimizer == pytest.approx(parameters, rel=2e-3)
    # 2 pairs of 26 targets: logits in bfloat16 and float32, their softmax, and the gradients.
    assert ddp["logits"].activations < 2 * 26 * 2 * 152_000 * 10 * 2
    assert ddp["vision tower"].activations == shards["vision tower"].activations > 2**28


def test_low_rank_training_has_states_of_the_module_the_projector_and_the_updates_only():
    pytest.importorskip("peft")
    memory = training_memory("0.5b", "lora")
    assert memory["vision tower"].optimizer == 0
    assert 0 < memory["language model"].optimizer < 0.01 * memory["language model"].weights
    assert memory["difference module"].optimizer == pytest.approx(8 * 63.8e6, rel=0.01)


@pytest.mark.slow
def test_the_computed_memory_of_a_tiny_network_with_152k_tokens_equals_a_measured_step():
    spec = importlib.util.spec_from_file_location("captioning_memory", BENCHMARK)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    memory = training_memory("tiny", "ddp", batch_size=4, vocab_size=152_000, dtype=torch.float32)
    # One process has no buckets.
    computed = total(memory).total - total(memory).optimizer // 2
    assert benchmark.measured_peak() == pytest.approx(computed, rel=0.1)
