"""The data type in which a network runs fastest on a device."""

import torch


def inference_dtype(device: torch.device | str = "cpu") -> torch.dtype:
    """Return bfloat16 if the device computes in it, otherwise float32.

    A processor without bfloat16 instructions emulates them: on AVX2, a forward pass of SmolLM2-135M
    took six times as long as in float32.

    Args:
        device: Device on which the network will run.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(False) else torch.float32
    if kind != "cpu":
        return torch.float32
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    tiles = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return torch.bfloat16 if supported() or tiles() else torch.float32
