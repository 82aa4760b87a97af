from typing import ClassVar, Literal

import pytest
import torch

from lightning_plugins.checkpoints import WORD, check_hyperparameters
from lightning_plugins.litmodels import (
    AITextDetector,
    CausalLM,
    ChangeCaptioner,
    ImageClassifier,
    InfluencePathPlanner,
)


class Module:
    checkpoint_strings: ClassVar = {"activation": WORD, "config": WORD, "kind": frozenset({"a/b"})}

    def __init__(
        self,
        width: int = 8,
        gate: Literal["linear", "mlp"] | None = "linear",
        sizes: tuple[int, ...] = (1, 2),
        activation: str = "gelu",
        config: dict | None = None,
        folder: str = "data/default",
        kind: str = "",
        loss: object = None,
    ):
        pass


def check(stored, given=None, cls=Module):
    check_hyperparameters(
        stored, cls, given=given, what="last.ckpt", remedy="pass {name}=... yourself"
    )


@pytest.mark.parametrize(
    "stored",
    [
        {},
        {"width": 3, "gate": "mlp", "sizes": [4, 5]},
        {"gate": None, "loss": torch.ones(2)},
        {"activation": "silu", "config": {"hidden_act": "gelu_new", "layers": [{"size": 1}]}},
        {"folder": "data/default"},
        {"kind": "a/b"},
    ],
)
def test_plain_data_is_accepted(stored):
    check(stored)


@pytest.mark.parametrize(
    "stored",
    [
        {"gate": "os.system"},
        {"folder": "/etc/passwd"},
        {"folder": "elsewhere"},
        {"activation": "my.module"},
        {"activation": "https://host"},
        {"activation": "../file"},
        {"kind": "b"},
        {"config": {"attn_implementation": "evil/kernels"}},
        {"config": {"auto_map": 1}},
        {"config": {"_name": 1}},
        {"config": {"a": [{"class_path": 1}]}},
        {"loss": {"class_path": "os.system", "init_args": {}}},
        {"loss": "os.system"},
        {"unknown": 1},
        {"class_path": "evil.Module", "init_args": {}},
        {"dict_kwargs": {}},
        {7: 1},
        {"config": {"a": [[[[[[[[[[[[1]]]]]]]]]]]]}},
        {"_instantiator": "os.system"},
        {"_class_path": "builtins.dict"},
        {"_class_path": "planted.Module"},
    ],
)
def test_anything_that_could_name_something_is_refused(stored):
    with pytest.raises(ValueError, match=r"last\.ckpt: "):
        check(stored)


def test_a_value_that_the_user_gives_too_is_accepted():
    loss = {"class_path": "my.Loss", "init_args": {"weights": (1, 2)}}
    check(
        {"folder": "mine", "loss": loss},
        given={"folder": "mine", "loss": {**loss, "init_args": {"weights": [1, 2]}}},
    )
    with pytest.raises(ValueError, match=r"folder='yours'.*pass folder=\.\.\. yourself"):
        check({"folder": "yours"}, given={"folder": "mine"})


def test_a_long_value_is_shortened_in_the_message():
    with pytest.raises(ValueError, match="xxx") as error:
        check({"folder": "x" * 10**6})
    assert len(str(error.value)) < 500


PLANNER_AT_A_STRANGERS_SERVER = {
    "class_path": "lightning_plugins.litmodels.recommendation.planners.LanguageModelPlanner",
    "init_args": {
        "model": {
            "class_path": "lightning_plugins.litmodels.recommendation.language.ChatServer",
            "init_args": {"base_url": "http://host/v1", "api_key_variable": "AWS_SECRET"},
        }
    },
}


@pytest.mark.parametrize(
    ("cls", "stored"),
    [
        (InfluencePathPlanner, {"planners": {"x": PLANNER_AT_A_STRANGERS_SERVER}}),
        (InfluencePathPlanner, {"backbone": "http://host/a.ckpt"}),
        (InfluencePathPlanner, {"evaluators": {"e": "/stranger/a.ckpt"}}),
        (AITextDetector, {"encoder": "stranger/model"}),
        (AITextDetector, {"tokenizer": "/stranger/folder"}),
        (AITextDetector, {"config": {"attn_implementation": "stranger/kernels"}}),
        (CausalLM, {"architecture": "stranger/model"}),
        (CausalLM, {"optimizer": {"class_path": "os.system"}}),
        (ChangeCaptioner, {"pretrained": "/stranger/folder"}),
        (ImageClassifier, {"network": "local-dir:/stranger/folder"}),
        (ImageClassifier, {"network": "hf_hub:stranger/model"}),
    ],
)
def test_a_checkpoint_of_this_package_names_no_file_class_server_or_variable(cls, stored):
    with pytest.raises(ValueError, match="does not take from a checkpoint"):
        check(stored, cls=cls)
