import os
import pickle

import pytest
import torch
import torch.multiprocessing as mp
from torch import distributed

from lightning_plugins.nn.plain_gather import all_gather_plain


class Exploit:
    def __reduce__(self):
        return os.mkdir, ("owned",)


def gather_on(rank, folder):
    os.chdir(folder)
    store = f"file://{folder}/store"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    value = {"rank": rank, "state": torch.arange(rank + 3), "words": ["a"] * rank}
    parts = all_gather_plain(value)
    assert [part["rank"] for part in parts] == [0, 1]
    assert parts[1]["words"] == ["a"]
    assert torch.equal(parts[1]["state"], torch.arange(4))
    with pytest.raises(pickle.UnpicklingError):
        all_gather_plain(Exploit())
    assert not os.path.exists("owned")
    distributed.destroy_process_group()


def test_plain_data_is_gathered_and_objects_are_not_unpickled(tmp_path):
    mp.start_processes(gather_on, (str(tmp_path),), nprocs=2, start_method="fork")
