"""The data type is bfloat16 only where the processor computes in it."""

import pytest
import torch

from lightning_plugins.nn.inference_dtype import inference_dtype


@pytest.mark.parametrize("supported", [False, True])
def test_the_type_follows_the_instructions_of_the_processor(monkeypatch, supported):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: supported)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert inference_dtype() == (torch.bfloat16 if supported else torch.float32)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert inference_dtype("cpu") == torch.bfloat16
    assert inference_dtype("mps") == torch.float32
