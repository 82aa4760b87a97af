"""ItemTextModel: its training texts and loss, and planning with its exported checkpoint."""

import pytest
import torch

from lightning_plugins.litmodels.recommendation import ItemTextModel
from lightning_plugins.litmodels.recommendation.language.local_model import LocalModel
from lightning_plugins.litmodels.recommendation.language.prompts import path_request

pytest.importorskip("transformers", reason="transformers is not installed")


def small(**changes):
    settings = {"hidden_size": 32, "layers": 2, "heads": 2, "vocabulary": 320, "path_length": 4}
    return ItemTextModel(**(settings | changes))


@pytest.fixture
def trained(walking_data, quiet_trainer):
    def make(steps, **changes):
        torch.manual_seed(0)
        module, data = small(**changes), walking_data()
        trainer = quiet_trainer(max_epochs=-1, max_steps=steps, limit_val_batches=1)
        trainer.fit(module, datamodule=data)
        return module, data, trainer

    return make


def test_a_training_text_has_the_planners_prompt_and_ends_before_the_target(trained):
    module, data, _ = trained(1)
    prompt, path = module._text([3, 9, 4, 5, 6, 7], 4)
    decode = module.tokenizer.decode
    messages = path_request(data.catalogue, [3, 9], 7, 4)
    assert decode(prompt) == LocalModel.plain_prompt(messages[-1]["content"])
    titles = [str(data.catalogue[item]) for item in (4, 5, 6)]
    assert decode(path) == "".join(f"- {title}\n" for title in titles) + "<end>"


@torch.no_grad()
def test_the_loss_covers_only_the_path(trained):
    module, _, _ = trained(1)
    texts = [module._text([3, 9, 4, 5, 6, 7], 4), module._text([1, 2, 3], 2)]
    total, count = 0.0, 0
    for prompt, path in texts:
        logits = module.network(torch.tensor([prompt + path])).logits[0].log_softmax(-1)
        for place, token in enumerate(path, len(prompt)):
            total -= float(logits[place - 1, token])
            count += 1
    assert float(module._loss(texts)) == pytest.approx(total / count, abs=1e-4)


def test_a_batch_of_two_item_windows_has_a_finite_loss(trained):
    module, _, _ = trained(1)
    windows = torch.tensor([[3, 4, 0, 0], [5, 6, 0, 0]])
    module.log = lambda *_, **__: None
    loss = module.training_step({"items": windows}, 0)
    assert loss.isfinite()
    assert loss.requires_grad


def test_the_exported_checkpoint_is_the_same_network(trained, tmp_path):
    module, _, trainer = trained(2, export_to=str(tmp_path / "exported"))
    model = LocalModel(str(tmp_path / "exported"))
    tokens = torch.tensor([model.tokenizer.encode("Target: Film 03 (1983)\nPath:\n")])
    torch.testing.assert_close(model.network(tokens).logits, module.network(tokens).logits)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = ItemTextModel.load_from_checkpoint(tmp_path / "last.ckpt", export_to=None)
    torch.testing.assert_close(loaded.network(tokens).logits, module.network(tokens).logits)


@pytest.mark.slow
def test_it_learns_to_write_the_walk(trained, tmp_path):
    _, data, _ = trained(400, hidden_size=64, export_to=str(tmp_path))
    model = LocalModel(str(tmp_path), batch_size=32)
    catalogue, starts = data.catalogue, range(1, 20)
    allowed = torch.ones(len(starts), 25, dtype=torch.bool)
    allowed[:, 0] = False
    prompts = []
    for row, start in zip(allowed, starts, strict=True):
        row[[start, start + 4]] = False
        prompts.append(model.prompt(path_request(catalogue, [start], start + 4, 3)))
    titles = [str(item) for item in list(catalogue)[1:]]
    paths = model.paths(prompts, model.trie(titles), allowed, 3)
    right = sum(
        item == start + place
        for start, path in zip(starts, paths, strict=True)
        for place, item in enumerate(path, 1)
    )
    assert right > 0.6 * 3 * len(starts), paths  # by chance 1 in 24


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": 0}, "layers=0: expected at least 1"),
        ({"path_length": 0}, "path_length=0: expected at least 1"),
        ({"hidden_size": 33}, "hidden_size=33: expected a multiple of heads=2"),
        ({"vocabulary": 100}, "vocabulary=100: expected at least 257"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        small(**arguments)
