"""Every back-end computes the weighted sum of the selected experts, and its gradient."""

import pytest
import torch

from lightning_plugins.nn.moe import MoELayer, Routing, dispatch
from lightning_plugins.nn.moe.dispatch import BACKENDS, _fastest_on_cpu, resolve_backend
from lightning_plugins.nn.moe.experts import (
    grouped_mm,
    supports_grouped_mm,
    traces_grouped_mm,
)

NAMED = [name for name in BACKENDS if name != "auto"]
needs_grouped_mm = pytest.mark.skipif(
    not supports_grouped_mm(torch.float32), reason="this torch has no grouped_mm"
)


def layer(backend="dense", dtype=torch.float32, **changes):
    torch.manual_seed(0)
    settings = {"in_features": 8, "out_features": 4, "num_experts": 5, "hidden_features": 12}
    return MoELayer(**(settings | {"top_k": 2} | changes), backend=backend).to(dtype)


def tokens(number=40, features=8, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(number, features, generator=generator, dtype=torch.float64).to(dtype)


def outcome(module, inputs, reduce=lambda y: (y * torch.linspace(-1, 1, y.shape[-1])).sum()):
    inputs = inputs.clone().requires_grad_()
    outputs = module(inputs)
    reduce(outputs.to(inputs.dtype)).backward()
    gradients = {name: p.grad for name, p in module.named_parameters()}
    return {"outputs": outputs.detach(), "inputs": inputs.grad, **gradients}


def by_hand(module, inputs):
    """Compute token by token, with a torch.nn perceptron per expert."""
    experts = []
    for e in range(module.experts.num_experts):
        parts = []
        for weight, bias in zip(module.experts.weights, module.experts.biases, strict=True):
            linear = torch.nn.Linear(*weight.shape[1:], dtype=weight.dtype)
            linear.weight.data = weight[e].detach().T
            linear.bias.data = bias[e].detach()
            parts += [linear, torch.nn.ReLU()]
        experts.append(torch.nn.Sequential(*parts[:-1]))
    outputs = []
    for token in inputs:
        probabilities = torch.softmax(module.gate(token), dim=0)
        chosen = probabilities.argsort(descending=True)[: module.top_k]
        outputs.append(sum(probabilities[e] * experts[e](token) for e in chosen.tolist()))
    return torch.stack(outputs)


@pytest.mark.parametrize("backend", NAMED)
def test_a_layer_matches_its_formula(backend):
    module = layer(backend)
    torch.testing.assert_close(module(tokens()), by_hand(module, tokens()), rtol=0, atol=1e-6)


@pytest.mark.parametrize("backend", ["loop", pytest.param("grouped_mm", marks=needs_grouped_mm)])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"top_k": 1},
        {"top_k": 5},
        {"num_experts": 64},  # more experts than the 40 tokens can reach
        {"hidden_features": 7, "out_features": 1},  # strides that are no multiples of 16 bytes
        {"num_layers": 3, "gate": "mlp"},
        {"activation": "swiglu", "bias": False},
        {"encoder_features": 3},
        {"shared_features": 6, "shared_gate": True},
        {"gate_weighting": "softmax_topk"},
    ],
    ids=str,
)
def test_back_ends_agree_in_value_and_gradient(backend, changes):
    expected = outcome(layer("dense", **changes), tokens())
    found = outcome(layer(backend, **changes), tokens())
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        if value is None:  # the decoder takes no part
            assert found[name] is None
            continue
        torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-6, msg=name)


def test_loop_and_dense_agree_in_double_precision():
    expected = outcome(layer("dense", torch.float64), tokens(dtype=torch.float64))
    found = outcome(layer("loop", torch.float64), tokens(dtype=torch.float64))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-12, atol=1e-12, msg=name)


@pytest.mark.parametrize("backend", NAMED)
def test_experts_without_tokens_get_a_gradient_of_zero(backend):
    module = layer(backend, num_experts=6, top_k=1, gate="affine")
    with torch.no_grad():
        module.gate.bias.copy_(torch.tensor([50.0, -50, -50, -50, -50, -50]))
    routing = module.route(tokens())
    assert routing.experts.unique().tolist() == [0]
    found = outcome(module, tokens())
    for name, gradient in found.items():
        if name.startswith("experts."):
            assert gradient[0].abs().sum() > 0
            assert gradient[1:].abs().sum() == 0


@needs_grouped_mm
@pytest.mark.parametrize("features", [4, 5])
def test_grouped_products_accept_an_expanded_gradient(features):
    rows = tokens(6).requires_grad_()
    weight = tokens(24, features).view(3, 8, features).requires_grad_()
    grouped_mm(rows, weight, torch.tensor([1, 1, 6], dtype=torch.int32)).sum().backward()
    ones = torch.ones(features)
    expected = torch.stack([weight[e].detach() @ ones for e in (0, 2, 2, 2, 2, 2)])
    torch.testing.assert_close(rows.grad, expected)


@pytest.mark.parametrize("backend", NAMED)
def test_zero_tokens_give_zero_outputs(backend):
    assert layer(backend)(tokens()[:0]).shape == (0, 4)


@pytest.mark.parametrize("backend", NAMED)
def test_leading_dimensions_are_kept(backend):
    module = layer(backend)
    torch.testing.assert_close(
        module(tokens().view(2, 20, 8)).view(40, 4), module(tokens()), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("backend", NAMED)
def test_autocast_applies_to_every_back_end(backend):
    with torch.no_grad():  # in single precision: rounding moves choices
        routing = layer().route(tokens())

    def run(module):
        found = dispatch(tokens(), routing, module.experts, module.backend)
        found.float().square().sum().backward()
        return found, module.experts.weights[0].grad

    expected, expected_gradient = run(layer())
    with torch.autocast("cpu", torch.bfloat16):
        found, gradient = run(layer(backend))
    assert found.dtype == torch.bfloat16
    assert gradient.dtype == torch.float32
    for one, other in ((found, expected), (gradient, expected_gradient)):
        assert 0 < (one - other).abs().max() < 0.02 * other.abs().max()


@pytest.mark.parametrize("backend", NAMED)
def test_a_compiled_layer_computes_the_same(backend):
    torch.compiler.reset()
    compiled = torch.compile(layer(backend), backend="aot_eager")
    found, expected = outcome(compiled, tokens()), outcome(layer(backend), tokens())
    for name, value in expected.items():
        own = found[name if name in found else f"_orig_mod.{name}"]
        torch.testing.assert_close(own, value, rtol=1e-6, atol=1e-6, msg=name)


@needs_grouped_mm
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_grouped_mm_compiles_without_a_graph_break(dtype):
    if not traces_grouped_mm(dtype):
        pytest.skip(f"torch {torch.__version__} does not trace grouped products in {dtype}")
    torch.compiler.reset()
    module = layer("grouped_mm", dtype)
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    inputs = tokens(dtype=dtype)
    torch.testing.assert_close(compiled(inputs), module(inputs))


@pytest.mark.slow
@pytest.mark.parametrize("backend", NAMED)
def test_inductor_computes_the_same(backend):
    torch.compiler.reset()
    compiled = torch.compile(layer(backend))
    found, expected = outcome(compiled, tokens()), outcome(layer(backend), tokens())
    for name, value in expected.items():
        own = found[name if name in found else f"_orig_mod.{name}"]
        torch.testing.assert_close(own, value, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("backend", NAMED)
def test_second_derivatives_exist(backend):
    def curvature(module):
        outputs = module(tokens()).square().mean()
        (gradient,) = torch.autograd.grad(outputs, module.experts.weights[0], create_graph=True)
        (product,) = torch.autograd.grad(gradient.square().sum(), module.experts.weights[1])
        return product

    torch.testing.assert_close(
        curvature(layer(backend)), curvature(layer("dense")), rtol=1e-5, atol=1e-7
    )


def test_auto_falls_back_in_double_precision():
    assert resolve_backend("auto", torch.float64) == "loop"
    found = outcome(layer("auto", torch.float64), tokens(dtype=torch.float64))
    expected = outcome(layer("dense", torch.float64), tokens(dtype=torch.float64))
    torch.testing.assert_close(found["inputs"], expected["inputs"], rtol=1e-12, atol=1e-12)


def test_grouped_mm_refuses_double_precision_at_construction_and_later():
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(ValueError, match="use backend='loop', or 'auto'"):
            layer("grouped_mm", torch.float64)
    finally:
        torch.set_default_dtype(torch.float32)
    with pytest.raises(ValueError, match=r"torch\.float64"):
        layer("grouped_mm", torch.float64)(tokens(dtype=torch.float64))


def test_an_unknown_back_end_is_refused():
    with pytest.raises(ValueError, match="expected 'auto', 'dense', 'loop', 'grouped_mm'"):
        layer("megablocks")


def test_any_callable_can_replace_the_experts():
    routing = Routing(torch.zeros(3, 2), torch.tensor([[0], [1], [0]]), torch.ones(3, 1))
    scale = torch.tensor([[[2.0]], [[5.0]]])
    for backend in ("dense", "loop"):
        found = dispatch(
            torch.ones(3, 1), routing, lambda rows, linear: linear(rows, scale, None), backend
        )
        assert found.flatten().tolist() == [2, 5, 2]


@pytest.mark.parametrize(
    ("tokens", "features", "experts", "hidden", "top_k", "expected"),
    [
        (256, 8, 4, 16, 1, "dense"),
        (64, 32, 8, 64, 2, "dense"),
        (2048, 8, 4, 10, 1, "loop"),
        (4096, 128, 8, 256, 1, "loop"),
        (256, 64, 16, 32, 2, "auto"),
    ],
)
def test_the_backend_on_a_cpu_depends_on_the_shapes(
    tokens, features, experts, hidden, top_k, expected
):
    module = MoELayer(features, features, experts, hidden, top_k=top_k)
    rows = torch.zeros(tokens, features)
    assert _fastest_on_cpu(rows, module.route(rows), module.experts) == expected
    assert module(rows).shape == (tokens, features)
