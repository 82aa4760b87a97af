import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader

from lightning_plugins.callbacks import ExactResume
from lightning_plugins.callbacks.unsaved_buffers import UnsavedBuffers


class WithBank(LightningModule):
    """Compares with a bank of past outputs, which its state_dict does not contain."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(4, 4)
        self.register_buffer("bank", torch.randn(6, 4), persistent=False)
        self.register_buffer("mask", torch.ones(1000), persistent=False)
        self.register_buffer("late", torch.zeros(0), persistent=False)

    def training_step(self, batch, batch_idx):
        output = self.net(batch)
        loss = torch.cdist(output, self.bank).mean() + self.late.sum()
        self.bank = torch.cat([self.bank[len(batch) :], output.detach()])
        self.late = output.detach().mean(0)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class SaveAt(Callback):
    def __init__(self, step, path):
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


def fit(*callbacks, ckpt_path=None, data=None):
    module = WithBank()
    torch.manual_seed(1 if ckpt_path is None else 2)
    data = data or DataLoader(torch.arange(48.0).reshape(12, 4) / 48, batch_size=2, shuffle=True)
    options = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(max_epochs=2, accelerator="cpu", callbacks=[*callbacks], **options)
    trainer.fit(module, data, ckpt_path=ckpt_path)
    return module


def test_a_run_with_a_memory_bank_resumes_exactly(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = tmp_path / "first.ckpt", tmp_path / "second.ckpt"
    whole = fit(ExactResume(), SaveAt(4, first))
    resumed = fit(ExactResume(), SaveAt(6, second), ckpt_path=first)
    again = fit(ExactResume(), ckpt_path=second)
    for module in (resumed, again):
        assert torch.equal(module.net.weight, whole.net.weight)
        assert torch.equal(module.bank, whole.bank)
        assert torch.equal(module.late, whole.late)
    states = torch.load(second, weights_only=True)["callbacks"]
    assert set(states["ExactResume"]["buffers"][0]) == {"bank", "late"}


@pytest.mark.parametrize(
    "change", [lambda x: x.add_(1), lambda x: x.data.mul_(2), lambda x: x.copy_(x.flip(0))]
)
def test_any_change_of_the_values_is_found(change):
    module = WithBank()
    unsaved = UnsavedBuffers(module)
    assert unsaved.changed() == {}
    change(module.bank)
    assert set(unsaved.changed()) == {"bank"}


def test_names_that_the_module_lacks_are_not_restored():
    module = WithBank()
    UnsavedBuffers(module).restore({"net.weight": torch.zeros(4, 4), "forward": torch.zeros(1)})
    assert module.net.weight.abs().sum() > 0
    assert callable(module.forward)


class OwnLoader:
    """A loader of another class than torch's, without a data set or a state."""

    def __iter__(self):
        return iter(torch.rand(6, 2, 4))


def test_a_loader_of_unknown_order_is_reported_on_resume(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit(ExactResume(), SaveAt(4, tmp_path / "x.ckpt"), data=OwnLoader())
    with pytest.warns(UserWarning, match="may not be exact: the training loader is a OwnLoader"):
        fit(ExactResume(), ckpt_path=tmp_path / "x.ckpt", data=OwnLoader())
