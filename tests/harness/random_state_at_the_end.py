"""Where the random stream of a run ended."""

import torch
from lightning.pytorch import Callback


class RandomStateAtTheEnd(Callback):
    """Keeps the state of torch's generator when training has ended."""

    def on_train_end(self, trainer, pl_module):
        self.state = torch.get_rng_state()
