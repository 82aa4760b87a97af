"""Documents in one window do not attend to each other."""

import pytest
import torch
from lightning.pytorch import Trainer
from small_language_models import GPT2, MOE, SMALL, made
from torch.nn.functional import cross_entropy
from torch.utils.data import default_collate

from lightning_plugins.datamodules import TokenDataModule
from lightning_plugins.litmodels import CausalLM
from lightning_plugins.litmodels.language_model.network import (
    inputs_and_targets,
    isolates_documents,
    require_routing_tables,
)

DOCUMENTS = ("to be\n", "or not to be, that\n", "is the question\n")
ARCHITECTURES = [("llama", SMALL), ("gpt2", GPT2), ("qwen2_moe", MOE)]


@pytest.fixture
def data(tmp_path):
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
        for index, text in enumerate(DOCUMENTS * 30):
            (tmp_path / part / f"{index:03}.txt").write_text(text)
    data = TokenDataModule(
        str(tmp_path),
        context_length=16,
        batch_size=4,
        mask_documents=True,
        data_dir=str(tmp_path / "tokens"),
    )
    data.prepare_data()
    data.setup()
    return data


def batch_of(data, windows):
    return default_collate([data.val_dataset[index] for index in windows])


def test_positions_and_labels_restart_at_each_document(data):
    window = data.val_dataset[0]
    text = "to be\n\0or not to "
    assert bytes(window["input_ids"].tolist()).decode() == text
    assert window["position_ids"].tolist() == [*range(7), *range(10)]
    assert window["labels"].tolist() == [*map(ord, text[:7]), -100, *map(ord, text[8:])]
    # Positions in a window that starts inside a document count from the start of the window.
    assert data.val_dataset[1]["position_ids"].tolist() == [*range(11), *range(6)]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(("architecture", "config"), ARCHITECTURES)
def test_packed_logits_equal_those_of_each_document_alone(data, architecture, config, attention):
    module = made(architecture, config).eval()
    module.network.set_attn_implementation(attention)
    inputs, targets = inputs_and_targets(batch_of(data, [0]))
    packed = module.network(**inputs).logits[0]
    first, second = inputs["input_ids"][:, :7], inputs["input_ids"][:, 7:]
    alone = torch.cat([module.network(part).logits[0] for part in (first, second)])
    torch.testing.assert_close(packed, alone, rtol=1e-4, atol=1e-5)
    unmasked = module.network(inputs["input_ids"]).logits[0]
    assert not torch.allclose(packed[7:], unmasked[7:], atol=1e-3)
    assert targets[0, 6] == -100


def test_the_loss_ignores_the_first_token_of_each_document():
    module = made().eval()
    tokens = torch.randint(1, 256, (1, 17), generator=torch.Generator().manual_seed(0))
    labels = tokens.clone()
    labels[0, 7] = -100
    positions = torch.cat([torch.arange(7), torch.arange(10)])[None]
    batch = {"input_ids": tokens, "position_ids": positions, "labels": labels}
    logits = module.network(tokens[:, :-1], position_ids=positions[:, :-1]).logits[0]
    likelihood = logits.log_softmax(-1)[torch.arange(16), tokens[0, 1:]]
    kept = torch.arange(16) != 6
    torch.testing.assert_close(module.loss(batch), -likelihood[kept].mean())


def test_a_fit_with_masked_documents_logs_the_masked_loss(tmp_path, data):
    module = CausalLM(context_length=16, config=SMALL)
    trainer = Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        max_epochs=3,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=data)
    inputs, targets = inputs_and_targets(batch_of(data, range(len(data.val_dataset))))
    expected = cross_entropy(module.network(**inputs).logits.flatten(0, 1), targets.flatten())
    torch.testing.assert_close(trainer.callback_metrics["val/loss"], expected, rtol=1e-5, atol=0)


def test_a_table_of_experts_that_was_never_filled_is_refused():
    network = torch.nn.Module()
    network.register_buffer("tid2eid", torch.zeros(9, 2, dtype=torch.int64))  # as in DeepSeek-V4
    with pytest.raises(ValueError, match="tid2eid sends all tokens to the first expert"):
        require_routing_tables(network)
    network.tid2eid[3, 1] = 1
    require_routing_tables(network)


def test_an_architecture_that_cannot_mask_documents_is_refused(tmp_path, data):
    pytest.importorskip("transformers.models.mamba")
    config = {"hidden_size": 16, "num_hidden_layers": 1, "state_size": 4}
    module = made("mamba", config)
    assert not isolates_documents(module.network)
    assert isolates_documents(made().network)
    refused = CausalLM("mamba", context_length=16, config=config)
    trainer = Trainer(
        default_root_dir=tmp_path, accelerator="cpu", logger=False, enable_checkpointing=False
    )
    with pytest.raises(ValueError, match=r"mask_documents=True: Mamba.*attends to earlier"):
        trainer.fit(refused, datamodule=data)
