import pytest

from lightning_plugins.datamodules import ResumableDataLoader


@pytest.mark.parametrize(
    "state",
    [
        {"epoch": -1, "batches_taken": 0},
        {"epoch": 0, "batches_taken": -3},
        {"epoch": 0, "batches_taken": 1.5},
        {"epoch": "0", "batches_taken": 0},
        {"epoch": 2**70, "batches_taken": 0},
        {"epoch": 0},
    ],
)
def test_a_forged_position_is_refused(state):
    loader = ResumableDataLoader(list(range(8)), 2)
    with pytest.raises(ValueError, match="state of the data loader has"):
        loader.load_state_dict(state)
