"""The recipe language_model/tiny on one process, under FSDP2, tensor parallelism, and both."""

import pytest
import sharded_recipe
import torch
from forked_ranks import launch

pytestmark = [pytest.mark.slow, pytest.mark.timeout(700)]

LAYOUTS = list(sharded_recipe.LAYOUTS)
RESUMED = [
    (source, form, target)
    for form in ("consolidated", "distributed")
    for source in LAYOUTS
    for target in LAYOUTS
    if sharded_recipe.is_run(source, form, target)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipe")
    launch(sharded_recipe.__file__, folder, limit=650)
    return folder


@pytest.fixture(scope="module")
def expected(folder):
    return {layout: sharded_recipe.found(folder / layout) for layout in LAYOUTS}


@pytest.mark.parametrize("layout", LAYOUTS[1:])
def test_every_layout_has_the_losses_of_one_process(expected, layout):
    losses, validation, _ = expected[layout]
    assert losses == pytest.approx(expected["one"][0], abs=1e-5)
    assert validation == pytest.approx(expected["one"][1], abs=1e-5)


@pytest.mark.parametrize(("source", "form", "target"), RESUMED)
def test_a_killed_run_resumes_on_every_layout(folder, expected, source, form, target):
    """Bit for bit on the layout of the killed run, and with the same losses on the others."""
    losses, validation, weights = sharded_recipe.found(folder / f"{source}, {form}, to {target}")
    after = range(sharded_recipe.SAVED + 1, sharded_recipe.STEPS + 1)
    assert list(losses) == list(after)
    assert losses == pytest.approx({step: expected[target][0][step] for step in after}, abs=1e-5)
    assert validation == pytest.approx(expected[target][1], abs=1e-5)
    if source == target:
        assert all(torch.equal(weights[name], value) for name, value in expected[source][2].items())
