"""Checkpoints that the authors of SCRN published, under our names."""

import re
from pathlib import Path

import torch
from torch import Tensor

# Names of the checkpoints of AIGT-detector-in-domain and -mixed-source on the Hugging Face hub.
_RENAMED = {
    r"bert\.": "encoder.",
    r"classifier\.dense\.": "head.dense.",
    r"classifier\.out_proj\.": "head.output.",
    r"reconNN\.encoder\.squeezer\.0\.": "reconstruction.squeeze.",
    r"reconNN\.encoder\.semantic_proj\.": "reconstruction.mean.",
    r"reconNN\.encoder\.perturbation_proj\.": "reconstruction.log_variance.",
    r"reconNN\.decoder\.recon_layers\.0\.": "reconstruction.expand.",
    r"reconNN\.decoder\.recon_layers\.2\.": "reconstruction.restore.",
}
# A pooler that nothing reads, and a buffer of positions that older transformers stored.
_UNUSED = re.compile(r"bert\.pooler\.|.*\.position_ids$")


def released_state_dict(path: str) -> dict[str, Tensor]:
    """The weights of a published checkpoint for our :class:`DetectorNetwork`.

    Args:
        path: of a ``pytorch_model.bin``, which is read as plain data, or a ``.safetensors`` file.

    Raises:
        ValueError: a name that the published checkpoints do not have.
    """
    if Path(path).suffix == ".safetensors":
        from safetensors.torch import load_file

        published = load_file(path)
    else:
        published = torch.load(path, map_location="cpu", weights_only=True)
    return {_renamed(name): w for name, w in published.items() if not _UNUSED.match(name)}


def _renamed(name: str) -> str:
    for pattern, ours in _RENAMED.items():
        renamed, count = re.subn(rf"^{pattern}", ours, name)
        if count:
            return renamed
    raise ValueError(f"{name!r} is no weight of a published detector")
