"""Generates the table of TransformerLens' head scores for the test of HeadScores.

The table contains two GPT-2s of transformers, random and trained on repeated sequences. Their
weights are rounded to multiples of 1/4096, so that the table stores them exactly. TransformerLens
does not have to be in the environment of the project:

    pip install --target PEERS --no-deps transformer-lens einops fancy-einsum jaxtyping beartype \
        "typeguard<5" transformers-stream-generator wadler-lindig sentencepiece
    PYTHONPATH=PEERS python benchmarks/transformer_lens_table.py
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformer_lens import FactoredMatrix
from transformer_lens.head_detector import detect_head
from transformer_lens.model_bridge import TransformerBridge
from transformers import GPT2Config, GPT2LMHeadModel

from lightning_plugins.nn.induction.head_patterns import repeated_probe

TABLE = Path(__file__).parents[1] / "tests" / "callbacks" / "transformer_lens_scores.npz"
CONFIG = {"n_embd": 16, "n_layer": 2, "n_head": 4, "vocab_size": 16, "n_positions": 32}
PERIOD, SEQUENCES, SCALE = 8, 4, 4096
DROPOUTS = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}


def random_model() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    tokens = {"bos_token_id": 0, "eos_token_id": 0}
    model = GPT2LMHeadModel(GPT2Config(**CONFIG, **DROPOUTS, **tokens))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return rounded(model)


def trained_model(steps: int = 1500) -> GPT2LMHeadModel:
    model = random_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(steps):
        period = 4 + step % 10
        tokens = repeated_probe(64, period, CONFIG["vocab_size"], seed=1000 + step)
        optimizer.zero_grad()
        logits = model(tokens).logits[:, period:-1]
        loss = cross_entropy(logits.flatten(0, 1), tokens[:, period + 1 :].flatten())
        loss.backward()
        optimizer.step()
    print(f"trained to a cross-entropy of {loss.item():.3f} nats on second copies")
    return rounded(model)


def rounded(model: GPT2LMHeadModel) -> GPT2LMHeadModel:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_((parameter * SCALE).round() / SCALE)
    return model.eval()


def scores_of(model: GPT2LMHeadModel) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)  # the bridge reads the configuration from the folder
        bridge = TransformerBridge.boot_transformers(folder, hf_model=model, device="cpu")
    tokens = repeated_probe(SEQUENCES, PERIOD, CONFIG["vocab_size"], seed=0)
    # detect_head converts text to tokens with the model, but there is no tokenizer here.
    bridge.to_tokens = lambda places: torch.stack([tokens[int(place)] for place in places])
    sequences = [str(place) for place in range(SEQUENCES)]  # one digit each
    found = {
        name: detect_head(bridge, sequences, f"{name}_head").double().numpy()
        for name in ("previous_token", "duplicate_token", "induction")
    }
    return found | {"copying": copying(bridge), "ablation": ablation(bridge, tokens)}


def copying(bridge: Any) -> np.ndarray:
    def score(layer: int, head: int) -> float:
        heads = FactoredMatrix(bridge.W_V[layer, head], bridge.W_O[layer, head])
        eigenvalues = (bridge.W_E @ heads @ bridge.W_U).eigenvalues
        return float((eigenvalues.sum() / eigenvalues.abs().sum()).real)

    return over_heads(score)


def ablation(bridge: Any, tokens: Tensor) -> np.ndarray:
    def loss(hooks: list[Any]) -> float:
        logits = bridge.run_with_hooks(tokens, fwd_hooks=hooks)[:, PERIOD:-1]
        return cross_entropy(logits.transpose(1, 2), tokens[:, PERIOD + 1 :]).item()

    def score(layer: int, head: int) -> float:
        def remove(z: Tensor, hook: Any) -> Tensor:
            z = z.clone()
            z[:, :, head] = 0
            return z

        return loss([(f"blocks.{layer}.attn.hook_z", remove)]) - loss([])

    return over_heads(score)


def over_heads(score: Any) -> np.ndarray:
    layers, heads = CONFIG["n_layer"], CONFIG["n_head"]
    return np.array([[score(layer, head) for head in range(heads)] for layer in range(layers)])


@torch.no_grad()
def main() -> None:
    table: dict[str, np.ndarray] = {}
    with torch.enable_grad():
        models = {"random": random_model(), "trained": trained_model()}
    for kind, model in models.items():
        for name, weight in model.named_parameters():  # before the bridge wraps the modules
            whole = (weight * SCALE).round()
            assert whole.abs().max() < 2**15, name
            table[f"{kind}/weights/{name}"] = whole.to(torch.int16).numpy()
        for name, scores in scores_of(model).items():
            table[f"{kind}/scores/{name}"] = scores
            print(kind, name, scores.round(4).tolist())
    np.savez_compressed(TABLE, **table)


if __name__ == "__main__":
    main()
