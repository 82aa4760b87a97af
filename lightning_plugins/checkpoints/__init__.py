"""Loading of checkpoints from anywhere, without running or importing anything that they name.

Weights are tensors, and ``torch.load(weights_only=True)`` reads nothing else. Hyperparameters are
plain data, but plain data can name a file, a class, a server or an environment variable, so they
are checked against the signature of the module and an allow-list.
"""

from lightning_plugins.checkpoints.command_line import (
    checked_hyperparameters as checked_hyperparameters,
)
from lightning_plugins.checkpoints.hyperparameters import WORD as WORD
from lightning_plugins.checkpoints.hyperparameters import CheckpointStrings as CheckpointStrings
from lightning_plugins.checkpoints.hyperparameters import (
    check_hyperparameters as check_hyperparameters,
)
from lightning_plugins.checkpoints.loading import CheckedLoading as CheckedLoading
from lightning_plugins.checkpoints.reading import is_url as is_url
from lightning_plugins.checkpoints.reading import keep_local_copy as keep_local_copy
from lightning_plugins.checkpoints.reading import local_copy as local_copy
from lightning_plugins.checkpoints.reading import read_checkpoint as read_checkpoint
from lightning_plugins.checkpoints.sharded import check_sharded as check_sharded
from lightning_plugins.checkpoints.sharded import is_sharded_checkpoint as is_sharded_checkpoint
from lightning_plugins.checkpoints.sharded import joined as joined
