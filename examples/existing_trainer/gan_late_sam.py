"""A generative adversarial network on the digits of scikit-learn: two optimizers, manual steps."""

import sys

import torch
from lightning import LightningModule, Trainer, seed_everything
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader

from lightning_plugins.callbacks import LateSAM


class LitGAN(LightningModule):
    def __init__(self, latent=16, lr=1e-3):
        super().__init__()
        self.automatic_optimization = False
        self.latent = latent
        self.lr = lr
        self.generator = nn.Sequential(
            nn.Linear(latent, 64), nn.ReLU(), nn.Linear(64, 64), nn.Sigmoid()
        )
        self.discriminator = nn.Sequential(nn.Linear(64, 64), nn.LeakyReLU(), nn.Linear(64, 1))

    def adversarial_loss(self, images, real):
        logits = self.discriminator(images)
        return binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))

    def training_step(self, batch, batch_idx):
        generator, discriminator = self.optimizers()
        fake = self.generator(torch.randn(len(batch), self.latent, device=self.device))
        g_loss = self.adversarial_loss(fake, real=True)
        generator.zero_grad()
        self.manual_backward(g_loss)
        generator.step()
        d_loss = self.adversarial_loss(batch, real=True)
        d_loss = d_loss + self.adversarial_loss(fake.detach(), real=False)
        discriminator.zero_grad()
        self.manual_backward(d_loss)
        discriminator.step()
        self.log_dict({"g_loss": g_loss, "d_loss": d_loss}, prog_bar=True)

    def configure_optimizers(self):
        return [
            torch.optim.Adam(self.generator.parameters(), lr=self.lr),
            torch.optim.Adam(self.discriminator.parameters(), lr=self.lr),
        ]


def main(max_epochs=5, **trainer_options):
    seed_everything(1)
    images = torch.tensor(load_digits().data, dtype=torch.float32) / 16
    trainer = Trainer(
        max_epochs=max_epochs,
        accelerator="cpu",
        callbacks=[LateSAM(start=0.75, rho=0.05)],
        **trainer_options,
    )
    trainer.fit(LitGAN(), DataLoader(images, 64, shuffle=True))
    return trainer


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
