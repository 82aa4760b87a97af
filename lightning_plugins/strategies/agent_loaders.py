"""The training loaders of many agents as one."""

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

_ENDED = object()


class AgentLoaders:
    """Yields lists with one batch of each agent, as many as each agent has.

    Args:
        loaders: of the agents, of equal length.

    Raises:
        ValueError: they turn out to be of different length, where they could not say so before.
    """

    batch_sampler = None
    """Lightning asks for it, to tell it the epoch; the agents' are told through ``sampler``."""

    def __init__(self, loaders: Sequence[Any]) -> None:
        self.loaders = list(loaders)

    @property
    def sampler(self) -> "AgentLoaders":
        """What is told the epoch."""
        return self

    @property
    def batch_size(self) -> int | None:
        """Samples of one agent's batch."""
        return getattr(self.loaders[0], "batch_size", None)

    def set_epoch(self, epoch: int) -> None:
        """Tell every agent's sampler the epoch."""
        for loader in self.loaders:
            inner = getattr(loader, "batch_sampler", None)
            for sampler in (getattr(loader, "sampler", None), getattr(inner, "sampler", None)):
                tell = getattr(sampler, "set_epoch", None)
                if tell is not None:
                    tell(epoch)

    def __len__(self) -> int:
        return len(self.loaders[0])

    def __iter__(self) -> Iterator[list[Any]]:
        iterators = [iter(loader) for loader in self.loaders]
        for number in count():
            batches = [next(iterator, _ENDED) for iterator in iterators]
            ended = [agent for agent, batch in enumerate(batches) if batch is _ENDED]
            if len(ended) == len(batches):
                return
            if ended:
                raise ValueError(
                    f"agents {ended} have {number} training batches an epoch and others have more: "
                    "set trainer.limit_train_batches to the smallest number"
                )
            yield batches

    def state_dict(self) -> dict[str, Any]:
        """The state of each loader that has one."""
        return {
            "agents": [
                loader.state_dict() if hasattr(loader, "state_dict") else None
                for loader in self.loaders
            ]
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue each loader that has a state."""
        for loader, own in zip(self.loaders, state["agents"], strict=True):
            if own is not None:
                loader.load_state_dict(own)
