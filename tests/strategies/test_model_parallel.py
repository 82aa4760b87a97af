"""Language models under ``ModelParallelStrategy`` on gloo processes equal one process."""

import json
import math
import re
from collections import Counter

import program_sharded
import program_sharded_captions
import pytest
import sharded_faults
import torch
from forked_ranks import launch

from lightning_plugins.__main__ import main
from lightning_plugins.nn.parallel import elements_per_rank

LAYOUTS = program_sharded.LAYOUTS
TWO_PROCESSES = LAYOUTS[:2]
STRATEGY = {(2, 1): "fsdp2", (1, 2): "tp", (2, 2): "fsdp2 and tp"}  # as docs/scale.md names them


DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.cuda,
            pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices"),
        ],
    ),
]


def trainings():
    """Layouts and cases; a case of a plugin fills the plugin's cell of docs/scale.md."""
    for layout in LAYOUTS:
        for name, case in program_sharded.CASES.items():
            if program_sharded.is_run(name, *layout):
                mark = pytest.mark.scale(plugin=case["plugin"], strategy=STRATEGY[layout])
                marks = [mark] if case["plugin"] and layout != (2, 2) else []
                yield pytest.param(layout, name, marks=marks, id=f"{STRATEGY[layout]}, {name}")


def loaded(file, processes):
    return [torch.load(f"{file}.{rank}", weights_only=True) for rank in range(processes)]


@pytest.fixture(scope="module", params=DEVICES)
def device(request):
    return request.param


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory, device):
    folder = tmp_path_factory.mktemp("sharded")
    launch(program_sharded.__file__, folder, device)
    return folder


@pytest.fixture(scope="module")
def several_processes(checkpoints):
    """Layout -> what each rank found; without layouts for which there are too few devices."""
    files = {layout: checkpoints / f"{layout[0]}x{layout[1]}.pt" for layout in LAYOUTS}
    return {
        layout: loaded(file, math.prod(layout))
        for layout, file in files.items()
        if file.with_name(f"{file.name}.0").exists()
    }


@pytest.fixture(scope="module")
def expected(checkpoints):
    """Case -> what one process found, for the mixture of experts what two replicas found."""
    one = torch.load(checkpoints / "one.pt", weights_only=True)
    return one | loaded(checkpoints / "ddp.pt", 2)[0]


@pytest.mark.parametrize(("layout", "name"), list(trainings()))
def test_a_sharded_training_equals_one_process(several_processes, expected, layout, name):
    """Its weights and measurements, for the mixture of experts those of two replicas."""
    if layout not in several_processes:
        pytest.skip(f"needs {math.prod(layout)} CUDA devices")
    sharded, whole = several_processes[layout][0]["weights"][name], expected[name]
    assert sharded.keys() == whole.keys()
    differences = {
        key: (sharded[key].nan_to_num(9e9) - whole[key].nan_to_num(9e9)).abs().max().item()
        for key in whole
        if not key.startswith("sharpness/")
    }
    assert max(differences.values()) <= (1e-2 if "bf16" in name else 1e-6), differences


def test_sharpness_by_differences_equals_that_by_second_derivatives(several_processes, expected):
    name = "sharpness"
    sharded, whole = (
        {key: value.item() for key, value in found.items() if key.startswith(name)}
        for found in (several_processes[2, 1][0]["weights"][name], expected[name])
    )
    for key in ("lambda_max", "lambda_2", "sam_gap"):
        assert sharded[f"{name}/{key}"] == pytest.approx(whole[f"{name}/{key}"], rel=1e-3)
    error = 4 * sharded[f"{name}/trace_standard_error"]
    assert sharded[f"{name}/trace"] == pytest.approx(whole[f"{name}/trace"], abs=error)


def test_ranks_of_a_tensor_parallel_group_read_the_same_batches(several_processes):
    first, second = (rank["seen"] for rank in several_processes[1, 2])
    assert first
    assert all(map(torch.equal, first, second))


def test_ranks_of_fsdp2_read_different_batches(several_processes):
    first, second = (rank["seen"] for rank in several_processes[2, 1])
    assert not any(map(torch.equal, first, second))


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("layout", TWO_PROCESSES, ids=STRATEGY.get)
def test_ranks_that_train_unsynchronized_replicas_end_with_an_error(
    several_processes, layout, rank
):
    errors = several_processes[layout][rank]["refusals"]
    assert errors["ddp"] is None
    assert errors["sharded"] is None
    assert (
        "after optimizer step 2 the ranks 0 and 1" in errors["ddp, changed before the second step"]
    )
    assert errors["ddp, changed before the third step"] is None  # later steps are not checked
    if layout == (2, 1):  # under tensor parallelism the replicas see the same batches
        assert "Unsharded trains replicas" in errors["not sharded"]


@pytest.mark.parametrize("form", ["distributed", "consolidated"])
@pytest.mark.parametrize("layout", TWO_PROCESSES, ids=STRATEGY.get)
def test_a_run_resumes_bit_for_bit_from_a_checkpoint_within_an_epoch(
    several_processes, layout, form
):
    runs = several_processes[layout][0][form]
    for name, value in runs["uninterrupted"].items():
        assert not torch.equal(value, runs["at the checkpoint"][name])
        assert torch.equal(value, runs["resumed"][name]), name


@pytest.mark.parametrize("layout", TWO_PROCESSES, ids=STRATEGY.get)
def test_a_consolidated_checkpoint_loads_into_a_module_of_one_process(
    several_processes, checkpoints, layout
):
    file = checkpoints / f"{layout[0]}x{layout[1]}.pt.consolidated" / "step=3.ckpt"
    model = program_sharded.model_of(program_sharded.case())
    model.configure_model()
    model.load_state_dict(torch.load(file, weights_only=True)["state_dict"])
    saved = several_processes[layout][0]["consolidated"]["at the checkpoint"]
    assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("layout", LAYOUTS, ids=STRATEGY.get)
def test_the_computed_number_of_parameters_per_rank_is_that_of_the_first_rank(
    several_processes, layout
):
    if layout not in several_processes:
        pytest.skip(f"needs {math.prod(layout)} CUDA devices")
    model = program_sharded.model_of(program_sharded.CASES["tied"])
    computed = elements_per_rank(model._make_network, *layout)
    assert several_processes[layout][0]["elements"] == computed


@pytest.mark.parametrize("layout", TWO_PROCESSES, ids=STRATEGY.get)
def test_idle_plugins_add_no_operation_to_a_step(several_processes, layout):
    for rank in several_processes[layout]:
        assert rank["costs"]["idle"] == rank["costs"]["none"]


@pytest.mark.parametrize("layout", TWO_PROCESSES, ids=STRATEGY.get)
def test_sam_adds_one_reduction_of_a_scalar_to_the_calls_of_its_second_pass(
    several_processes, layout
):
    costs = several_processes[layout][0]["costs"]
    plain, sam = (
        Counter({name: count for name, count in costs[run].items() if "c10d" in name})
        for run in ("none", "sam")
    )
    # Lightning's call for each batch, and the two counts of CausalLM's targets, with a barrier.
    names = ("c10d.broadcast_.default", "c10d.allreduce_.default", "c10d.barrier.default")
    once = Counter({name: plain[name] for name in names})
    assert list(once.values()) == [1, 2, 2]
    both = Counter({name: 2 * count for name, count in plain.items()}) - once
    assert sam == both + Counter({"c10d.allreduce_.default": 1})


@pytest.mark.parametrize(("strategy", "fault", "rank"), sharded_faults.FAULTS)
def test_ranks_that_part_end_with_the_error_within_30_seconds(
    checkpoints, several_processes, strategy, fault, rank
):
    (ranks,) = [
        ranks
        for which, ranks in json.loads((checkpoints / "faults.json").read_text())
        if which == [strategy, fault, rank]
    ]
    codes, seconds, texts = zip(*ranks, strict=True)
    assert all(codes), texts
    assert max(seconds) < 30
    said = "a batch that only this rank has"
    if fault != "raises":
        said = f"rank {rank} is about to [a-z ]+.*, while rank {1 - rank} (is about to|has begun)"
    assert re.search(said, texts[rank]), texts[rank]


@pytest.mark.parametrize(
    ("architecture", "config", "said"),
    [
        ("gpt2", program_sharded.GPT2, "no tensor-parallel plan for GPT2LMHeadModel"),
        ("qwen2_moe", program_sharded.MOE, "the plan of Qwen2MoeForCausalLM has the style "),
        ("llama", {**program_sharded.SIZES, "num_key_value_heads": 1}, "num_key_value_heads=1"),
    ],
)
def test_an_unsupported_tensor_parallelism_is_one_line_before_data_is_prepared(
    architecture, config, said, capsys, tmp_path
):
    for part in ("train", "val"):
        (tmp_path / f"{part}.txt").write_text("some words")
    options = {
        "config": "language_model/tiny",
        "model.architecture": architecture,
        "model.config": json.dumps(config),
        "data.corpus": tmp_path,
        "data.data_dir": tmp_path / "prepared",
        "trainer.devices": 2,
        "trainer.strategy": "ModelParallelStrategy",
        "trainer.strategy.data_parallel_size": 1,
        "trainer.strategy.tensor_parallel_size": 2,
    }
    assert main(["fit", *(f"--{name}={value}" for name, value in options.items())]) == 2
    lines = capsys.readouterr().err.splitlines()
    (line,) = [line for line in lines if line.startswith("lightning-plugins: ")]
    assert said in line
    assert "tensor_parallel_size=" in line
    assert not (tmp_path / "prepared").exists()


@pytest.mark.slow
def test_three_stages_of_a_captioner_under_fsdp2_equal_one_process_and_resume_exactly(tmp_path):
    launch(program_sharded_captions.__file__, tmp_path)
    whole, resumed = (loaded(tmp_path / name, 2)[0] for name in ("uninterrupted", "resumed"))
    (alone,) = loaded(tmp_path / "one_process", 1)
    both = zip(*(rank["losses"] for rank in loaded(tmp_path / "uninterrupted", 2)), strict=True)
    means = [sum(losses) / 2 for losses in both]
    assert len(means) == program_sharded_captions.FIRST_STEPS[-1]
    assert alone["losses"] == pytest.approx(means, abs=1e-5)
    for name, value in alone["weights"].items():
        torch.testing.assert_close(whole["weights"][name], value, rtol=0, atol=1e-5)
        assert torch.equal(resumed["weights"][name], whole["weights"][name])
    assert resumed["losses"] == whole["losses"][program_sharded_captions.CHECKPOINT :]
