"""LightningDataModules, one a task, each with an embedded default."""
