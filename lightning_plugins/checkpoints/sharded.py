"""Checks of sharded checkpoints, parts of which torch unpickles without restriction.

A sharded checkpoint is a folder. Its file ``.metadata`` is a pickle, and so is every value that is
not a tensor, such as a learning rate. Tensors are read with ``weights_only=True``.
"""

import io
import pickle
from pathlib import Path
from typing import Any

import torch

from lightning_plugins.inputs.names import path_inside

_METADATA = "torch.distributed.checkpoint.metadata"
_ALLOWED = {
    *(
        (_METADATA, name)
        for name in (
            "BytesStorageMetadata",
            "ChunkStorageMetadata",
            "Metadata",
            "MetadataIndex",
            "StorageMeta",
            "TensorProperties",
            "TensorStorageMetadata",
            "_MEM_FORMAT_ENCODING",
        )
    ),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("torch", "Size"),
    ("torch.serialization", "_get_layout"),
    ("collections", "OrderedDict"),
    ("pathlib", "PosixPath"),
    ("pathlib", "PurePosixPath"),
}


def is_sharded_checkpoint(path: str | Path) -> bool:
    """Whether ``path`` is the folder of a sharded checkpoint."""
    return (Path(path) / ".metadata").is_file()


def joined(folder: Path, file: Path) -> Path:
    """Write a sharded checkpoint of Lightning as one file, which every strategy reads.

    Needs no process group, and memory for the whole checkpoint.

    Args:
        folder: The checkpoint, which ``check_sharded`` has checked.
        file: Where to write it.
    """
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    dcp_to_torch_save(folder, file)
    content = torch.load(file, weights_only=True)
    states = sorted(  # optimizer_0, optimizer_1, ...
        (key for key in content if key.startswith("optimizer_")), key=lambda key: int(key[10:])
    )
    content["optimizer_states"] = [content.pop(key) for key in states]
    if (folder / "meta.pt").is_file():  # progress, callbacks, hyperparameters
        content |= torch.load(folder / "meta.pt", map_location="cpu", weights_only=True)
    torch.save(content, file)
    return file


def check_sharded(folder: Path) -> None:
    """Check everything that torch unpickles when it loads the checkpoint in ``folder``.

    Raises:
        pickle.UnpicklingError: A part contains an object other than tensors and plain data.
        ValueError: A part is stored outside the folder or is transformed by named code.
    """
    # They define the classes that the description consists of.
    import torch.distributed.checkpoint.filesystem
    from torch.distributed.checkpoint.metadata import BytesStorageMetadata

    with (folder / ".metadata").open("rb") as file:
        description = _DescriptionUnpickler(file).load()
    pickled = {
        name
        for name, value in description.state_dict_metadata.items()
        if isinstance(value, BytesStorageMetadata)
    }
    for index, place in (description.storage_data or {}).items():
        path = path_inside(folder, place.relative_path, str(folder))
        if getattr(place, "transform_descriptors", None):
            raise ValueError(f"{path}: its content is transformed, which is not supported")
        if index.fqn in pickled:
            with path.open("rb") as file:
                file.seek(place.offset)
                torch.load(io.BytesIO(file.read(place.length)), weights_only=True)


class _DescriptionUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        is_dtype = module == "torch" and isinstance(vars(torch).get(name), torch.dtype)
        if is_dtype or (module, name) in _ALLOWED:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"GLOBAL {module}.{name} is not part of a checkpoint")
