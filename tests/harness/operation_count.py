"""Counts the tensor operations of one training step."""

from lightning.pytorch import Callback
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

_WAITING = ("_local_scalar_dense", "is_nonzero", "nonzero.default", "equal.default")


class Operations(TorchDispatchMode):
    """Counts tensor operations, and those that synchronize with the device."""

    def __init__(self):
        super().__init__()
        self.total, self.synchronizations = 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.total += 1
        self.synchronizations += any(name in str(function) for name in _WAITING)
        return function(*args, **(kwargs or {}))


class _Counting(Callback):
    def on_train_batch_start(self, *_):
        self.operations = Operations()
        self.operations.__enter__()

    def on_train_batch_end(self, *_):
        self.operations.__exit__(None, None, None)


def operations_of_the_third_step(task, folder, callbacks):
    """Count the operations of the ``task`` fixture's classifier, without logging."""

    class Silent(task.Classifier):
        def training_step(self, batch, batch_idx):
            return cross_entropy(self(batch[0]), batch[1])

    counting = _Counting()
    task.train(folder, [counting, *callbacks], Silent(), max_epochs=1, limit_train_batches=3)
    return counting.operations
