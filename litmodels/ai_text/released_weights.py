"""Conversion of the checkpoints that the authors of SCRN published."""

import re
from pathlib import Path

import torch
from torch import Tensor

# Parameter names in AIGT-detector-in-domain and -mixed-source on the Hugging Face hub, and ours.
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
# A pooler whose output is not used, and a buffer that older versions of transformers stored.
_UNUSED = re.compile(r"bert\.pooler\.|.*\.position_ids$")


def released_state_dict(path: str) -> dict[str, Tensor]:
    """Read a published checkpoint as the state dict of a :class:`DetectorNetwork`.

    Args:
        path: A ``pytorch_model.bin``, read with ``weights_only=True``, or a ``.safetensors`` file.

    Raises:
        ValueError: The file contains a name that the published checkpoints do not have.
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
    raise ValueError(f"{name!r} is not a weight of a published SCRN detector")
