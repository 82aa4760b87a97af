"""Finds ranks that are about to wait for one another at different places of a run."""

import itertools
import time
from contextlib import suppress
from datetime import timedelta
from typing import Any

import torch.distributed as dist
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_plugins._lightning_compat.loops import before_each_batch
from lightning_plugins._lightning_compat.processes import default_store
from lightning_plugins.nn.parallel import leave_process_groups_at_exit

_COLLECTIVE = ("reduce", "broadcast", "barrier", "all_gather")
_LONGEST_PAUSE = 0.2
_PATIENCE = 2.0
_numbers = itertools.count()


class RankMeetings:
    """Compares, through the store of the process group, where each rank is.

    If one rank reduces a metric while another one runs its backward pass, both wait for the timeout
    of the process group, 30 minutes by default, and then report only that. The store answers
    without the other ranks, so a rank that reads it raises an error that names both places.

    The first rank compares itself with all others, which compare themselves with the first one.

    Attributes:
        compares: Whether the strategy's collective methods are places too.

    Args:
        trainer: The Trainer of the run, whose process group exists.
    """

    def __init__(self, trainer: Trainer) -> None:
        leave_process_groups_at_exit()
        self._strategy: Any = trainer.strategy
        self._rank = trainer.global_rank
        self._others = list(range(1, trainer.world_size)) if self._rank == 0 else [0]
        # One prefix for each run of this process; all ranks start the same runs.
        self._store = dist.PrefixStore(f"lightning_plugins/{next(_numbers)}", default_store())
        self._places = itertools.count()
        self._batches = 0
        self.compares = True
        for name in _COLLECTIVE:
            setattr(self._strategy, name, _Announced(getattr(self._strategy, name), name, self))
        self._stop_counting = before_each_batch(trainer, self._begin_batch)

    def close(self) -> None:
        """Stop observing the run."""
        self.compares = False
        self._stop_counting()
        for name in _COLLECTIVE:
            vars(self._strategy).pop(name, None)

    def meet(self, place: str) -> None:
        """Wait until the other ranks have reached their next place, and compare.

        Raises:
            MisconfigurationException: The places differ, or another rank has begun a later batch.
            RuntimeError: Another rank has failed, or the store has ended.
        """
        number = next(self._places)
        self._store.set(f"place {number} of {self._rank}", place)
        for rank in self._others:
            try:
                other = self._answer(f"place {number} of {rank}", place, rank)
            except dist.DistNetworkError as error:
                raise RuntimeError(
                    f"rank {self._rank} is about to {place}, but the store of the process group "
                    "has ended, usually with the first rank: read the output of that rank"
                ) from error
            if other != place:
                raise MisconfigurationException(
                    f"rank {self._rank} is about to {place}, while rank {rank} is about to "
                    f"{other}: both would wait for each other without end. Let all ranks call the "
                    "same hooks, and self.log with sync_dist=True for the same names"
                )

    def report(self, exception: BaseException) -> None:
        """Let ranks that wait for this one know that it failed.

        The store usually ends with the first rank, which therefore waits for the reports of the
        other ranks, at most two seconds.
        """
        self.close()
        with suppress(RuntimeError):  # the store may have ended with the first rank
            if not self._store.check(["failed"]):
                what = f"rank {self._rank}: {type(exception).__name__}: {exception}"
                self._store.set("failed", what)
            self._store.set(f"{self._rank} has failed", "")
            if self._rank == 0:
                reports = [f"{rank} has failed" for rank in self._others]
                self._store.wait(reports, timedelta(seconds=_PATIENCE))

    def _begin_batch(self) -> None:
        self._batches += 1
        self._store.set(f"batches of {self._rank}", str(self._batches))

    def _answer(self, key: str, place: str, rank: int) -> str:
        """Wait for a key of another rank."""
        pause = 0.0
        while not self._store.check([key]):
            if self._store.check(["failed"]):
                raise RuntimeError(f"another rank failed: {self._store.get('failed').decode()}")
            batches = f"batches of {rank}"
            begun = int(self._store.get(batches)) if self._store.check([batches]) else 0
            # The key again, because the other rank may have written it in the meantime.
            if begun > self._batches and not self._store.check([key]):
                raise MisconfigurationException(
                    f"rank {self._rank} is about to {place} after {self._batches} training "
                    f"batches, while rank {rank} has begun batch {begun}: both would wait for each "
                    "other without end. Give all ranks the same number of batches, and stop them "
                    "together: trainer.should_stop = "
                    "trainer.strategy.reduce_boolean_decision(stop, all=False)"
                )
            time.sleep(pause)
            pause = min(pause * 1.5 + 1e-4, _LONGEST_PAUSE)
        return self._store.get(key).decode()


class _Announced:
    """A collective method of the strategy that announces itself first.

    Equal to the method: Lightning compares it between calls of ``self.log``.
    """

    def __init__(self, method: Any, name: str, meetings: RankMeetings) -> None:
        self.method: Any = method.method if isinstance(method, _Announced) else method
        self._name = name
        self._meetings = meetings

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._meetings.compares:
            self._meetings.meet(
                f"call {self._name}() of the strategy, as self.log does with sync_dist"
            )
        return self.method(*args, **kwargs)

    def __eq__(self, other: object) -> bool:
        return self.method == (other.method if isinstance(other, _Announced) else other)

    def __hash__(self) -> int:
        return hash(self.method)
