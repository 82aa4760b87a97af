"""A convolutional network on the digits of scikit-learn, as in Lightning's tutorials."""

import sys

import torch
from lightning import LightningModule, Trainer, seed_everything
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset, random_split

from lightning_plugins.callbacks import ExactResume, LateSAM


class LitDigits(LightningModule):
    def __init__(self, channels=16, lr=0.05):
        super().__init__()
        self.lr = lr
        self.network = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(channels, 2 * channels, 3, padding=1),
            nn.BatchNorm2d(2 * channels),
            nn.ReLU(),
            nn.Flatten(),
            nn.LazyLinear(10),
        )
        self.network(torch.zeros(2, 1, 8, 8))

    def forward(self, x):
        return self.network(x)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = cross_entropy(self(x), y)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        logits = self(x)
        self.log("val_loss", cross_entropy(logits, y), prog_bar=True)
        self.log("val_acc", (logits.argmax(-1) == y).float().mean(), prog_bar=True)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


def main(max_epochs=8, **trainer_options):
    seed_everything(1)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    data = TensorDataset(images, torch.tensor(digits.target))
    train, val = random_split(data, [1437, 360])
    trainer = Trainer(
        max_epochs=max_epochs,
        accelerator="cpu",
        callbacks=[LateSAM(start=0.75, rho=0.05), ExactResume()],
        **trainer_options,
    )
    model = LitDigits()
    trainer.fit(model, DataLoader(train, 32, shuffle=True), DataLoader(val, 360))
    return trainer


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
