"""Checkpoints between the blockwise and the plain optimizer, also without this package."""

import subprocess
import sys

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from small_transformers import same_weights, train, transformer
from torch.distributed.checkpoint.state_dict import (
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.optim import AdamW
from torch.utils.data import DataLoader

from lightning_plugins.optimizers import (
    AdamMini,
    BlockwiseAdamMini,
    BlockwiseAdamW,
    BlockwiseSchedule,
    GradPower,
)

ONES = dict.fromkeys(("embedding", "qk", "vo", "ffn", "norm", "head"), 1.0)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_checkpoint_loads_into_adamw_and_back(architecture):
    """With multipliers of one, all three runs are identical."""
    ones = {block: 1.0 for block in ONES if block != "head" or architecture == "llama"}
    plain, ours = transformer(architecture), transformer(architecture)
    reference = AdamW(plain.parameters(), lr=1e-2)
    train(plain, reference, 9)

    first = BlockwiseAdamW(ours.named_parameters(), lr=1e-2, multipliers=ones)
    train(ours, first, 3)
    second = AdamW(ours.named_parameters(), lr=1.0)
    second.load_state_dict(first.state_dict())
    train(ours, second, 3, first=3)
    third = BlockwiseAdamW(ours.named_parameters(), lr=1e-2, multipliers=ones)
    third.load_state_dict(second.state_dict())
    train(ours, third, 3, first=6)
    assert same_weights(plain, ours)


def test_a_block_without_decay_does_not_disable_it_in_the_plain_optimizer():
    model = transformer("llama")
    settings = {"lr": 1e-2, "weight_decay": 0.1}
    ours = BlockwiseAdamW(model.named_parameters(), no_decay_blocks=["norm"], **settings)
    train(model, ours, 2)
    plain = AdamW(model.parameters(), lr=1.0, weight_decay=0.3)
    plain.load_state_dict(ours.state_dict())
    assert [(g["lr"], g["weight_decay"]) for g in plain.param_groups] == [(1e-2, 0.1)]
    again = BlockwiseAdamW(model.named_parameters(), no_decay_blocks=["norm"], **settings)
    again.load_state_dict(ours.state_dict())
    found = {g["name"]: g["weight_decay"] for g in again.param_groups}
    assert found == {name: 0.0 if name == "norm" else 0.1 for name in found}


def test_a_checkpoint_loads_into_adam_mini_and_back():
    """With multipliers of one, all three runs are identical."""
    straight, ours = transformer("llama"), transformer("llama")
    heads = {"head_dim": 4}
    train(straight, AdamMini(straight.named_parameters(), lr=1e-2, **heads), 9)
    first = BlockwiseAdamMini(ours.named_parameters(), lr=1e-2, multipliers=ONES, **heads)
    train(ours, first, 3)
    second = AdamMini(ours.named_parameters(), lr=1.0, **heads)
    second.load_state_dict(first.state_dict())
    train(ours, second, 3, first=3)
    third = BlockwiseAdamMini(ours.named_parameters(), lr=1e-2, multipliers=ONES, **heads)
    third.load_state_dict(second.state_dict())
    train(ours, third, 3, first=6)
    assert same_weights(straight, ours)


def test_the_rates_of_the_blocks_resume_exactly():
    straight, resumed = transformer("gpt2"), transformer("gpt2")
    optimizer = BlockwiseAdamW(straight.named_parameters(), lr=1e-2)
    train(straight, optimizer, 6)
    before = BlockwiseAdamW(resumed.named_parameters(), lr=1e-2)
    train(resumed, before, 3)
    after = BlockwiseAdamW(resumed.named_parameters(), lr=1.0)
    after.load_state_dict(before.state_dict())
    assert [g["lr"] for g in after.param_groups] == [g["lr"] for g in optimizer.param_groups]
    train(resumed, after, 3, first=3)
    assert same_weights(straight, resumed)


def test_the_rates_resume_exactly_from_state_dicts_of_torch_distributed():
    straight, resumed = transformer("llama"), transformer("llama")
    optimizer = BlockwiseAdamW(straight.named_parameters(), lr=1e-2)
    train(straight, optimizer, 6)
    before = BlockwiseAdamW(resumed.named_parameters(), lr=1e-2)
    train(resumed, before, 3)
    after = BlockwiseAdamW(resumed.named_parameters(), lr=1.0)
    set_optimizer_state_dict(resumed, after, get_optimizer_state_dict(resumed, before))
    assert [g["lr"] for g in after.param_groups] == [g["lr"] for g in optimizer.param_groups]
    train(resumed, after, 3, first=3)
    assert same_weights(straight, resumed)


def test_parameters_of_a_checkpoint_are_matched_by_name():
    model = transformer("llama")
    reversed_order = AdamW(list(reversed(list(model.named_parameters()))), lr=1e-2)
    train(model, reversed_order, 2)
    ours = BlockwiseAdamW(model.named_parameters(), lr=1e-2)
    ours.load_state_dict(reversed_order.state_dict())
    for parameter in model.parameters():
        wanted = reversed_order.state[parameter]["exp_avg"]
        assert torch.equal(ours.state[parameter]["exp_avg"], wanted)


def test_checkpoints_of_other_models_raise_an_error():
    ours = BlockwiseAdamW(transformer("llama").named_parameters())
    other = AdamW(transformer("gpt2").named_parameters())
    with pytest.raises(ValueError, match="28 parameters and the optimizer has 21"):
        ours.load_state_dict(other.state_dict())
    renamed = AdamW([(f"x.{n}", p) for n, p in transformer("llama").named_parameters()])
    with pytest.raises(ValueError, match="21 parameters, such as 'lm_head"):
        ours.load_state_dict(renamed.state_dict())


PLAIN = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "lightning_plugins":
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
sys.path.insert(0, sys.argv[1])
import torch
from small_transformers import transformer
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

class Module(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = transformer("llama")
    def training_step(self, tokens, index):
        return self.net(tokens, labels=tokens).loss
    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1.0)

torch.manual_seed(1)
data = DataLoader(torch.randint(24, (24, 12)), batch_size=4)
trainer = Trainer(accelerator="cpu", max_steps=6, logger=False, enable_checkpointing=False,
                  enable_progress_bar=False, enable_model_summary=False)
trainer.fit(Module(), data, ckpt_path=sys.argv[2], weights_only=True)
optimizer = trainer.optimizers[0]
steps = {float(state["step"]) for state in optimizer.state.values()}
print(trainer.global_step, steps, optimizer.param_groups[0]["lr"], len(optimizer.param_groups))
"""


class Ours(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = transformer("llama")

    def training_step(self, tokens, batch_idx):
        return self.net(tokens, labels=tokens).loss

    def configure_optimizers(self):
        optimizer = GradPower(
            self.named_parameters(), base=lambda params: BlockwiseAdamW(params, lr=1e-3), p=1.2
        )
        schedule = BlockwiseSchedule(optimizer, total_steps=6, floor=1e-4)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def test_a_run_resumes_under_plain_adamw_where_this_package_cannot_be_imported(tmp_path):
    torch.manual_seed(1)
    trainer = Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        max_steps=3,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Ours(), DataLoader(torch.randint(24, (24, 12)), batch_size=4))
    path = tmp_path / "run.ckpt"
    trainer.save_checkpoint(path)
    harness = str(next(p for p in map(str, sys.path) if p.endswith("harness")))
    run = subprocess.run(
        [sys.executable, "-c", PLAIN, harness, str(path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    step, steps, *rest = run.stdout.splitlines()[-1].split()
    assert (step, steps) == ("6", "{6.0}")
    # The rate of the norms at the third step, which a cosine had lowered.
    assert 1e-4 < float(rest[0]) < 1e-3
    assert rest[1] == "1"
