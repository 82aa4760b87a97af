"""Optimizers and schedules, and how a LightningModule gets them from YAML."""
