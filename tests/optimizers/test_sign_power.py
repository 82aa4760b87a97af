"""sign(g)·|g|^p against the power in double precision."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_plugins.optimizers import sign_power as module
from lightning_plugins.optimizers import sign_power_

EXPONENTS = (0.3, 0.5, 0.8, 1.0, 1.05, 1.2, 1.5, 2.0, 3.0)
SPECIAL = torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, 1.0, -1.0])
COMPILED = [False, True]


def magnitudes(count=20_000):
    generator = torch.Generator().manual_seed(0)
    sign = torch.randn(count, generator=generator).sign()
    return sign * 10 ** (torch.rand(count, generator=generator) * 60 - 30)


def exact(gradient, p, floor=0.0):
    wide = gradient.double()
    return torch.sign(wide) * (wide.abs() + floor) ** p


@pytest.mark.parametrize("compiled", COMPILED)
@pytest.mark.parametrize("p", EXPONENTS)
def test_every_magnitude_agrees_with_double_precision(p, compiled):
    gradient = magnitudes()
    wanted = exact(gradient, p)
    sign_power_([gradient], p, compile=compiled)
    normal = (wanted.abs() > 1e-37) & (wanted.abs() < 1e38)
    error = ((gradient.double() - wanted) / wanted)[normal].abs().max()
    assert error < 1e-5


@pytest.mark.parametrize("is_vectorized", [False, True])
def test_the_logarithm_of_numpy_or_pytorch_is_accurate(is_vectorized, monkeypatch):
    monkeypatch.setattr(module, "_numpy_has_vector_log2", lambda: is_vectorized)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    gradient = magnitudes()
    wanted = exact(gradient, 1.2)
    sign_power_([gradient], 1.2)
    usual = (wanted.abs() > 1e-15) & (wanted.abs() < 1e15)
    assert ((gradient.double() - wanted) / wanted)[usual].abs().max() < 1e-6
    special = SPECIAL.clone()
    sign_power_([special], 1.2)
    torch.testing.assert_close(special, SPECIAL, equal_nan=True, rtol=0, atol=0)
    assert torch.equal(special.signbit(), SPECIAL.signbit())


@pytest.mark.parametrize("compiled", COMPILED)
@pytest.mark.parametrize("p", EXPONENTS)
def test_zeros_keep_their_sign_infinities_and_nan_stay(p, compiled):
    gradient = SPECIAL.repeat(1000)  # long enough to be compiled
    sign_power_([gradient], p, compile=compiled)
    gradient = gradient.view(1000, -1)[-1]
    assert gradient.tolist()[:4] == [0, 0, math.inf, -math.inf]
    assert torch.signbit(gradient).tolist()[:2] == [False, True]
    assert gradient.isnan().tolist()[4]
    assert gradient.tolist()[5:] == [1, -1]


@pytest.mark.parametrize("compiled", COMPILED)
def test_the_floor_agrees_with_the_released_code(compiled):
    gradient = torch.cat([magnitudes(), torch.zeros(3)])
    wanted = exact(gradient, 1.2, floor=1e-8)
    sign_power_([gradient], 1.2, floor=1e-8, compile=compiled)
    normal = wanted.abs() < 1e38
    torch.testing.assert_close(gradient.double()[normal], wanted[normal], rtol=1e-5, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_round_the_single_precision_power(dtype):
    gradient = torch.randn(1000, generator=torch.Generator().manual_seed(1)).to(dtype) * 1e-2
    wanted = exact(gradient, 1.2)
    sign_power_([gradient], 1.2)
    tolerance = {torch.float16: 2**-10, torch.bfloat16: 2**-7, torch.float64: 1e-13}[dtype]
    normal = wanted.abs() > 1e-4
    assert ((gradient.double() - wanted) / wanted)[normal].abs().max() < tolerance


@pytest.mark.parametrize(
    "gradient",
    [torch.randn(0), torch.randn(()), torch.randn(3, 5).t(), torch.randn(200_000)],
    ids=["empty", "scalar", "transposed", "several chunks"],
)
def test_every_shape_and_layout_is_transformed(gradient):
    wanted = exact(gradient, 1.2).to(gradient.dtype)
    sign_power_([gradient], 1.2)
    torch.testing.assert_close(gradient, wanted, rtol=1e-5, atol=0)


@pytest.mark.parametrize("floor", [0.0, 1e-8])
@pytest.mark.parametrize("p", [0.7, 1.2])
def test_small_gradients_are_transformed_together(p, floor):
    sizes = [0, 1, 10, 5000, 16_384] * 5  # more than one chunk
    dtypes = [torch.float32, torch.bfloat16, torch.float64]
    generator = torch.Generator().manual_seed(2)
    together = [torch.randn(n, generator=generator).to(d) for n in sizes for d in dtypes]
    wanted = [exact(gradient, p, floor) for gradient in together]
    sign_power_(together, p, floor)
    for gradient, one in zip(together, wanted, strict=True):
        rtol = 2**-7 if gradient.dtype == torch.bfloat16 else 1e-5
        torch.testing.assert_close(gradient.double(), one, rtol=rtol, atol=0)


def test_channels_last_gradients_are_transformed_in_place():
    gradient = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    wanted = exact(gradient, 1.2).float()
    sign_power_([gradient], 1.2)
    torch.testing.assert_close(gradient, wanted, rtol=1e-5, atol=0)


class LargestNew(TorchDispatchMode):
    """The most elements of a tensor whose memory an operation allocated."""

    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        inputs = {a.untyped_storage().data_ptr() for a in args if isinstance(a, torch.Tensor)}
        if isinstance(out, torch.Tensor) and out.untyped_storage().data_ptr() not in inputs:
            self.largest = max(self.largest, out.numel())
        return out


def test_the_extra_memory_is_one_chunk():
    chunk = module._CPU_CHUNK * torch.get_num_threads()
    assert chunk >= 60_000
    gradients = [torch.randn(n) for n in (5 * chunk, *[10_000] * 10, 10)]
    with LargestNew() as new:
        sign_power_(gradients, 1.2)
    assert new.largest == chunk


@pytest.mark.parametrize(
    ("gradient", "message"),
    [
        (torch.eye(3).to_sparse(), "sparse=False"),
        (torch.ones(3, dtype=torch.complex64), "complex64"),
        (torch.ones(3, dtype=torch.int64), "int64"),
        (torch.ones(4, 4)[:, ::2], "contiguous"),
        (torch.ones(1).expand(5), "contiguous"),
    ],
)
def test_unsupported_gradients_raise_an_error(gradient, message):
    with pytest.raises(TypeError, match=message):
        sign_power_([gradient], 1.2)


@pytest.mark.slow
def test_new_exponents_and_shapes_do_not_recompile():
    import torch._dynamo

    torch._dynamo.reset()
    module.compiled_sign_power_(torch.randn(100), 1.2, 0.0)
    module.compiled_sign_power_(torch.randn(300), 1.2, 0.0)
    before = dict(torch._dynamo.utils.counters["stats"])
    for p, size in ((1.1, 50), (1.3, 4000), (0.9, 70_000)):
        module.compiled_sign_power_(torch.randn(size), p, 0.0)
    assert dict(torch._dynamo.utils.counters["stats"]) == before
