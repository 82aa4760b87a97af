"""Language models under ``ModelParallelStrategy`` on gloo processes equal one process."""

import functools
import os
import signal
import subprocess
import sys

import program_sharded
import program_sharded_captions
import pytest
import torch

LAYOUTS = [(2, 1), (1, 2), (2, 2)]
TWO_PROCESSES = LAYOUTS[:2]
STRATEGY = {(2, 1): "fsdp2", (1, 2): "tp", (2, 2): "fsdp2 and tp"}  # as docs/scale.md names them


def expected():
    """Layouts and cases; a case of a plugin fills the plugin's cell of docs/scale.md."""
    for layout in LAYOUTS:
        for name, case in program_sharded.CASES.items():
            if case["architecture"] == "gpt2" and layout[1] > 1:
                continue  # transformers has no tensor-parallel plan for it
            if layout == (2, 2) and name not in program_sharded.FOUR_PROCESSES:
                continue
            mark = pytest.mark.scale(plugin=case["plugin"], strategy=STRATEGY[layout])
            marks = [mark] if case["plugin"] and layout != (2, 2) else []
            yield pytest.param(layout, name, marks=marks, id=f"{STRATEGY[layout]}, {name}")


def launch(processes, program, *arguments):
    """Run a program on several processes; they are killed together after the time limit."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={processes}", program.__file__, *map(str, arguments)]
    process = subprocess.Popen(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        text, _ = process.communicate(timeout=400)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        text, _ = process.communicate()
        pytest.fail(f"the processes hang: {text[-3000:]}")
    assert process.returncode == 0, text[-3000:]


def loaded(file, processes):
    return [torch.load(f"{file}.{rank}", weights_only=True) for rank in range(processes)]


@functools.cache
def one_process(name):
    return program_sharded.train(program_sharded.CASES[name], "auto", 1)[0]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    return tmp_path_factory.mktemp("sharded")


@pytest.fixture(scope="module")
def several_processes(checkpoints):
    found = {}
    for data_parallel, tensor_parallel in LAYOUTS:
        output = checkpoints / f"{data_parallel}x{tensor_parallel}.pt"
        processes = data_parallel * tensor_parallel
        launch(processes, program_sharded, data_parallel, tensor_parallel, output)
        found[data_parallel, tensor_parallel] = loaded(output, processes)
    return found


@pytest.mark.parametrize(("layout", "name"), list(expected()))
def test_a_sharded_training_equals_one_process(several_processes, layout, name):
    sharded, whole = several_processes[layout][0]["weights"][name], one_process(name)
    assert sharded.keys() == whole.keys()
    difference = max((sharded[key] - whole[key]).abs().max().item() for key in whole)
    assert difference <= 1e-6


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
    expected = several_processes[layout][0]["consolidated"]["at the checkpoint"]
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


@pytest.mark.slow
def test_three_stages_of_a_captioner_under_fsdp2_equal_ddp(tmp_path):
    launch(2, program_sharded_captions, tmp_path)
    first = loaded(tmp_path / "found", 2)[0]
    sharded, replicated = first["fsdp2"], first["ddp"]
    assert sharded["losses"] == pytest.approx(replicated["losses"], abs=1e-5)
    for name, value in replicated["weights"].items():
        torch.testing.assert_close(sharded["weights"][name], value, rtol=0, atol=1e-5)
