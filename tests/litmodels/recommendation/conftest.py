"""Data with a learnable rule for the next item, and a small language model."""

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer

from lightning_plugins.datamodules import InteractionDataModule

TITLES = [f"Film {number} ({1980 + number})" for number in range(1, 13)]


@pytest.fixture(scope="session")
def walks(tmp_path_factory):
    """A file of 60 users who walk through 24 items, mostly to the next item number."""
    generator = np.random.default_rng(0)
    rows = []
    for user in range(60):
        unseen, item = set(range(24)), int(generator.integers(24))
        for time in range(14):
            unseen.discard(item)
            rows.append(f"{user},{item:02d},{time},Film {item:02d},{1980 + item},genre {item // 6}")
            ahead = [step % 24 for step in range(item + 1, item + 24) if step % 24 in unseen]
            item = ahead[0] if generator.random() < 0.9 else int(generator.choice(ahead))
    path = tmp_path_factory.mktemp("walks") / "walks.csv"
    path.write_text("\n".join(["user,item,timestamp,title,year,genres", *rows]) + "\n")
    return path


@pytest.fixture(scope="session")
def walking_data(walks):
    """A factory of DataModules of the walks."""

    def make(**changes):
        settings = {"max_length": 8, "batch_size": 16, "predict_users": 12}
        return InteractionDataModule(str(walks), **(settings | changes))

    return make


@pytest.fixture(scope="session")
def quiet_trainer(tmp_path_factory):
    """A factory of Trainers without output and logs."""
    folder = tmp_path_factory.mktemp("runs")

    def make(**options):
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
        defaults = {"accelerator": "cpu", "enable_checkpointing": False, "max_epochs": 1}
        return Trainer(**{"default_root_dir": folder, **defaults, **quiet, **options})

    return make


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory):
    """Folder of a random Llama with a byte-level tokenizer trained on the titles."""
    pytest.importorskip("transformers", reason="transformers is not installed")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    words.train_from_iterator(
        TITLES * 3,
        trainers.BpeTrainer(
            vocab_size=300, initial_alphabet=alphabet, special_tokens=["<end>"], show_progress=False
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="<end>", pad_token="<end>"
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.5,
    )
    folder = tmp_path_factory.mktemp("llama")
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
