"""The papers' claims as experiments with rules written before the run."""
