"""The random state at the end of a run."""

import torch
from lightning.pytorch import Callback


class RandomStateAtTheEnd(Callback):
    """Records the state of torch's generator at the end of training."""

    def on_train_end(self, trainer, pl_module):
        self.state = torch.get_rng_state()
