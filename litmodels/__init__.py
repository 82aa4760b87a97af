"""LightningModules, one folder a task."""
