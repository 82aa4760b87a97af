"""Scores as torchmetrics metrics."""
