"""The C++ kernels on CPUs: accuracy, AdamW's arithmetic, and what happens without a compiler."""

import copy
import functools
import math
import warnings

import pytest
import torch
from small_transformers import largest_difference, same_weights, train, transformer
from torch import nn
from torch.optim import AdamW, Optimizer
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_plugins.optimizers import AdamWPower, BlockwiseAdamW, gradpower, sign_power_
from lightning_plugins.optimizers.power_kernels import power_kernels
from lightning_plugins.optimizers.powered_adamw import PoweredAdamW

SIZES = (0, 1, 7, 300, 40_000)  # none; less than a vector; with a remainder; more than one chunk


@pytest.fixture(autouse=True)
def kernels():
    found = power_kernels()
    assert found is not None
    return found


def magnitudes(first, last, count=100_000):
    generator = torch.Generator().manual_seed(0)
    exponents = first + (last - first) * torch.rand(count, generator=generator, dtype=torch.double)
    return (10**exponents).float() * torch.randn(count, generator=generator).sign()


@pytest.mark.parametrize("p", [0.2, 0.5, 0.95, 1.05, 1.2, 1.5, 1.98])
@pytest.mark.parametrize(("first", "last"), [(-12, 12), (-38, 38.5), (-44.8, -37.9)])
def test_the_power_is_accurate_for_every_magnitude(kernels, p, first, last):
    gradient = magnitudes(first, last)
    exact = gradient.double().sign() * gradient.double().abs() ** p
    assert kernels.sign_power_([gradient], p, 0.0)
    normal = (exact.abs() >= 2.0**-126) & (exact.abs() < 3.4e38)
    error = (gradient.double() - exact).abs()
    assert (error[normal] <= 1e-6 * exact.abs()[normal]).all()
    # Subnormal results are 2**-149 apart.
    below = exact.abs() < 2.0**-126
    assert (error[below] <= 1e-6 * exact.abs()[below] + 2.0**-149).all()
    assert gradient[exact.abs() > 3.5e38].isinf().all()


@pytest.mark.parametrize("floor", [0.0, 1e-8])
@pytest.mark.parametrize("p", [0.2, 0.8, 1.2, 1.98])
def test_special_values_are_those_of_torch_pow(kernels, p, floor):
    special = torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, 1.0, -1.0]).repeat(5)
    wanted = (special.abs() + floor).pow(p).copysign(special).where(special != 0, special)
    assert kernels.sign_power_([special], p, floor)
    torch.testing.assert_close(special, wanted, rtol=1e-6, atol=0, equal_nan=True)
    assert torch.equal(special.signbit(), wanted.signbit())


def test_bfloat16_is_rounded_to_the_nearest(kernels):
    gradient = magnitudes(-12, 12).bfloat16()
    wanted = (gradient.double().sign() * gradient.double().abs() ** 1.2).float().bfloat16()
    assert kernels.sign_power_([gradient], 1.2, 0.0)
    assert (gradient == wanted).float().mean() > 0.9999  # ties of the rounding
    torch.testing.assert_close(gradient, wanted, rtol=2**-7, atol=0)


def parameters(dtype):
    generator = torch.Generator().manual_seed(1)
    tensors = [torch.randn(n, generator=generator).to(dtype) for n in SIZES]
    image = torch.randn((2, 3, 4, 5), generator=generator).to(dtype)
    tensors.append(image.to(memory_format=torch.channels_last))
    return [nn.Parameter(tensor) for tensor in tensors]


def give_gradients(of, step):
    generator = torch.Generator().manual_seed(100 + step)
    for parameter in of:
        noise = torch.randn(parameter.numel(), generator=generator) * 1e-2
        parameter.grad = torch.empty_like(parameter).copy_(noise.view(parameter.shape))


OPTIONS = {
    "plain": {},
    "decay": {"weight_decay": 0.1},
    "amsgrad": {"amsgrad": True},
    "maximize": {"maximize": True},
    "floor": {"floor": 1e-8},
    "tensor rates": {"lr": torch.tensor(1e-2), "fused": True},
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_one_kernel_is_the_power_followed_by_adamw(options, dtype):
    arguments = {"lr": 1e-2, "p": 1.2, **options}
    ours = parameters(dtype)
    exact = [nn.Parameter(parameter.detach().double()) for parameter in ours]
    kernel = AdamWPower(ours, **arguments, compile=True)
    reference = AdamWPower(exact, **arguments)
    for step in range(5):
        give_gradients(ours, step)
        for one, other in zip(ours, exact, strict=True):
            other.grad = one.grad.double()
        before = [parameter.grad.clone() for parameter in ours]
        kernel.step()
        reference.step()
        assert all(map(torch.equal, before, [parameter.grad for parameter in ours]))
    tolerance = 2e-6 if dtype == torch.float32 else 2e-2
    for one, other in zip(ours, exact, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=tolerance, atol=tolerance)
        for key, value in reference.state[other].items():
            found = kernel.state[one][key].double()
            atol = tolerance * float(value.abs().max()) if value.numel() else 0.0
            torch.testing.assert_close(found, value.double(), rtol=5 * tolerance, atol=atol)


def test_threads_do_not_change_the_result():
    one, two = parameters(torch.float32), parameters(torch.float32)
    before = torch.get_num_threads()
    try:
        for threads, own in ((1, one), (2, two)):
            torch.set_num_threads(threads)
            give_gradients(own, 0)
            AdamWPower(own[:-1], compile=True).step()
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, one[:-1], two[:-1]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_with_power_one_the_steps_equal_the_fused_adamws_bit_for_bit(dtype):
    plain, ours = transformer("llama", dtype), transformer("llama", dtype)
    train(plain, AdamW(plain.parameters(), lr=1e-2, fused=True), 20)
    train(ours, AdamWPower(ours.parameters(), p=1, lr=1e-2, fused=True, compile=True), 20)
    assert same_weights(plain, ours)


@pytest.mark.parametrize("options", [{"p": 3.0}, {"foreach": True}, {"fused": False}])
def test_groups_without_kernel_support_are_updated_by_pytorch(options):
    plain, ours = parameters(torch.float32), parameters(torch.float32)
    for own, compiled in ((plain, False), (ours, True)):
        optimizer = AdamWPower([{"params": own[:3], **options}, {"params": own[3:]}])
        optimizer._compile = compiled
        for step in range(3):
            give_gradients(own, step)
            optimizer.step()
    for one, other in zip(plain, ours, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_precisions_are_updated_by_pytorch(dtype):
    plain, ours = parameters(dtype), parameters(dtype)
    for own, compiled in ((plain, False), (ours, True)):
        give_gradients(own, 0)
        AdamWPower(own, eps=1e-4, compile=compiled).step()
    assert all(map(torch.equal, plain, ours))


def test_an_exponent_may_be_a_tensor_that_a_schedule_changes():
    number, tensor = parameters(torch.float32), parameters(torch.float32)
    p = torch.tensor(1.2, dtype=torch.float64)
    for own, exponent in ((number, 1.2), (tensor, p)):
        optimizer = AdamWPower([{"params": own, "p": exponent}], compile=True)
        for step, value in enumerate((1.2, 1.1)):
            if exponent is p:
                p.fill_(value)
            else:
                optimizer.param_groups[0]["p"] = value
            give_gradients(own, step)
            optimizer.step()
    assert all(map(torch.equal, number, tensor))


def test_a_checkpoint_continues_under_the_plain_optimizer_and_back():
    def run(switch):
        model = transformer("llama")
        make = functools.partial(AdamWPower, list(model.parameters()), lr=1e-2)
        optimizer = make(compile=True)
        for step in range(4):
            train(model, optimizer, 1, first=step)
            if switch:
                state = copy.deepcopy(optimizer.state_dict())
                optimizer = make(compile=step % 2 == 1)
                optimizer.load_state_dict(state)
        return model

    assert largest_difference(run(False), run(True)) < 1e-6


@pytest.mark.slow
def test_a_compiled_module_trains_with_the_kernel_as_the_eager_module():
    def trained(prepare):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 1))
        optimizer = AdamWPower(model.parameters(), lr=1e-2, compile=True)
        forward = prepare(model)
        for step in range(5):
            optimizer.zero_grad()
            inputs = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
            forward(inputs).square().mean().backward()
            optimizer.step()
        return model

    eager, compiled = trained(lambda model: model), trained(torch.compile)
    assert largest_difference(eager, compiled) < 1e-6


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_blockwise_adamw_takes_the_same_kernel(architecture):
    eager, compiled = transformer(architecture), transformer(architecture)
    BlockwiseAdamW(eager.named_parameters())  # PyTorch adds its wrapper of step to the class
    make = gradpower(BlockwiseAdamW, 1.23)
    train(eager, make(eager.named_parameters(), lr=1e-3), 5)
    optimizer = make(compiled.named_parameters(), lr=1e-3, compile=True)
    train(compiled, optimizer, 5)
    assert isinstance(optimizer, PoweredAdamW)
    assert largest_difference(eager, compiled) < 1e-6
    for parameter in compiled.parameters():
        parameter.grad = torch.full_like(parameter, 0.5)
    optimizer.step()
    assert all((parameter.grad == 0.5).all() for parameter in compiled.parameters())


def test_a_subclass_with_its_own_step_is_transformed_first():
    class Signed(AdamW):
        """Does not call AdamW's step."""

        def step(self, closure=None):
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.data -= parameter.grad

    parameter = nn.Parameter(torch.tensor([1.0]))
    optimizer = gradpower(Signed, 1.5, compile=True)([parameter], lr=1.0)
    parameter.grad = torch.tensor([4.0])
    optimizer.step()
    assert parameter.item() == pytest.approx(1 - 8)


class Names(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


def test_a_step_is_one_operation_for_all_tensors():
    model = transformer("llama")
    optimizer = AdamWPower(model.parameters(), compile=True)
    for _ in range(2):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        with Names() as operations:
            optimizer.step()
    of_step = [name for name in operations.names if not name.startswith("profiler.")]
    assert of_step == ["lightning_plugins.adamw_power_.default"]


def test_without_a_compiler_one_warning_and_the_same_result(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    power_kernels.cache_clear()
    try:
        eager, ours = parameters(torch.float32), parameters(torch.float32)
        with warnings.catch_warnings(record=True) as issued:
            warnings.simplefilter("always")
            for own, compiled in ((eager, False), (ours, True)):
                optimizer = AdamWPower(own, compile=compiled)
                for step in range(3):
                    give_gradients(own, step)
                    optimizer.step()
        assert len(issued) == 1
        assert "no C++ compiler 'c++'" in str(issued[0].message)
        assert all(map(torch.equal, eager, ours))
    finally:
        power_kernels.cache_clear()


def test_a_failing_compiler_is_reported_with_its_error(monkeypatch, tmp_path):
    compiler = tmp_path / "compiler"
    compiler.write_text("#!/bin/sh\necho 'fatal error: no room' >&2\nexit 1\n")
    compiler.chmod(0o700)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "extensions"))
    power_kernels.cache_clear()
    try:
        with pytest.warns(UserWarning, match="fatal error: no room"):
            assert power_kernels() is None
        gradient = torch.full((3,), 4.0)
        sign_power_([gradient], 1.5, compile=True)
        torch.testing.assert_close(gradient, torch.full((3,), 8.0))
    finally:
        power_kernels.cache_clear()


def test_later_processes_load_the_library_without_the_compiler(monkeypatch):
    monkeypatch.setattr("subprocess.run", None)
    power_kernels.cache_clear()
    assert power_kernels() is not None


@pytest.mark.parametrize(
    "gradient", [torch.eye(3).to_sparse(), torch.ones(3, 3, dtype=torch.cfloat)]
)
def test_unsupported_gradients_raise_an_error(gradient):
    parameter = nn.Parameter(torch.ones(3, 3, dtype=gradient.dtype))
    parameter.grad = gradient
    optimizer: Optimizer = AdamWPower([parameter], compile=True)
    with pytest.raises(TypeError, match="GradPower"):
        optimizer.step()
