"""LLaVA-OneVision for image pairs, with a difference-aware module before the projector."""

from functools import cache, wraps
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lightning_plugins.litmodels.change_captioning.sizes import SIZES, Size
from lightning_plugins.nn.change import DifferenceAwareIntegration
from lightning_plugins.optional_packages import requires

Difference = Literal["integrate", "alone", "none"]
NO_TARGET = -100
"""Label of a token that is not a target."""


def build_network(
    size: Size = "tiny",
    difference: Difference = "integrate",
    zero_gate: bool = True,
    vocab_size: int | None = None,
) -> Any:
    """Build a ``LlavaOnevisionForConditionalGeneration`` for image pairs, with random weights.

    ``forward`` and ``generate`` take ``pixel_values`` ``(batch, 2, 3, height, width)`` in [-1, 1],
    the range of SigLIP. Each image replaces ``network.tokens_per_image`` image tokens of
    ``input_ids``, without a newline token. With ``labels``, ``forward`` computes the logits of the
    target positions only; its ``logits`` are then ``(number of targets, vocab_size)``.

    Unused weights (the tower's last norm, the newline) do not require gradients, so DDP does not
    need ``find_unused_parameters``.

    Args:
        size: ``tiny`` (0.4 M parameters), ``0.5b`` or ``7b`` (the sizes of CCExpert).
        difference: ``integrate`` applies the difference-aware module between the vision tower and
            the projector, as CCExpert does. ``alone`` applies it to each image paired with itself,
            a control with the same parameters that cannot see the change. ``none`` is plain
            LLaVA-OneVision.
        zero_gate: See :class:`~lightning_plugins.nn.change.DifferenceAwareIntegration`.
        vocab_size: Rows of the embedding; None for the size's own number.

    Raises:
        ValueError: ``size`` or ``difference`` is unknown.
        ImportError: transformers 5 is not installed.
    """
    if size not in SIZES:
        raise ValueError(f"size={size!r}: expected one of {', '.join(map(repr, SIZES))}")
    if difference not in ("integrate", "alone", "none"):
        raise ValueError(f"difference={difference!r}: expected 'integrate', 'alone' or 'none'")
    config = _configuration(size, vocab_size)
    network = _pair_llava()(config, SIZES[size], difference, zero_gate)
    for unused in (network.model.vision_tower.post_layernorm, network.model.image_newline):
        unused.requires_grad_(False)
    return network


def with_lora(network: Any, rank: int) -> Any:
    """Add low-rank updates (peft) to the query and value projections of the language model.

    Only these, the projector and the difference module remain trainable.

    Raises:
        ImportError: peft is not installed.
    """
    with requires("peft", by=f"lora_rank={rank}", extra="text"):
        from peft import LoraConfig, get_peft_model
    whole = ["multi_modal_projector"] + ["difference"] * (network.model.difference is not None)
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=r".*language_model.*\.(q_proj|v_proj)",
        modules_to_save=whole,
    )
    return get_peft_model(network, config)


def merged_weights(network: Any) -> dict[str, Tensor]:
    """Return the weights of a network of :func:`with_lora` with the updates added, by plain name.

    The network is not changed. Unlike peft's ``merge_and_unload``, only one copy of the updated
    weights is made.
    """
    from peft.tuners.lora import Linear

    base = network.get_base_model()
    updated = {name: module for name, module in base.named_modules() if isinstance(module, Linear)}
    weights = {}
    for name, weight in base.state_dict().items():
        if "lora_" in name or ".original_module." in name:
            continue
        plain = name.replace(".modules_to_save.default.", ".").replace(".base_layer.", ".")
        owner = name.partition(".base_layer.weight")[0]
        if name.endswith(".base_layer.weight"):
            weight = weight + updated[owner].get_delta_weight("default").to(weight.dtype)
        weights[plain] = weight
    return weights


def _configuration(size: Size, vocab_size: int | None) -> Any:
    with requires("transformers>=5", by="ChangeCaptioner", extra="text"):
        from transformers import LlavaOnevisionConfig, Qwen2Config, SiglipVisionConfig
    chosen = SIZES[size]
    rows = {} if vocab_size is None else {"vocab_size": vocab_size}
    return LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**chosen.vision),
        text_config=Qwen2Config(**({**chosen.text, **rows})),
        image_token_index=chosen.image_token_id,
        video_token_index=-1,  # no token is a video token
        tie_word_embeddings=chosen.text["tie_word_embeddings"],
    )


# Defined in a function, because transformers is optional; cached, so that there is one class.
@cache
def _pair_llava() -> type:
    from transformers import LlavaOnevisionForConditionalGeneration, LlavaOnevisionModel
    from transformers.modeling_outputs import BaseModelOutputWithPooling, CausalLMOutput

    class PairModel(LlavaOnevisionModel):
        """Vision tower, difference module, projector and language model."""

        def __init__(self, config: Any, size: Any, difference: str, zero_gate: bool) -> None:
            super().__init__(config)
            self.levels = size.levels
            self.pairs_alone = difference == "alone"
            self.difference: DifferenceAwareIntegration | None = None
            if difference != "none":
                self.difference = DifferenceAwareIntegration(
                    config.vision_config.hidden_size, size.num_layers, size.num_heads, zero_gate
                )

        def _init_weights(self, module: nn.Module) -> None:
            if isinstance(module, DifferenceAwareIntegration):
                module.reset_parameters()  # transformers has initialised its submodules before
            else:
                super()._init_weights(module)

        def pair_features(self, pixel_values: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
            """Compute features of the first images, the second images and the change.

            Args:
                pixel_values: ``(batch, 2, 3, height, width)``.

            Returns:
                Features ``(batch, tokens, dim)`` each, before the projector; the last are None
                without a difference module.
            """
            images = pixel_values.flatten(0, 1)  # first and second images alternate
            found = self.vision_tower(images, output_hidden_states=True).hidden_states
            if self.difference is None:
                return found[-1][0::2], found[-1][1::2], None
            before = [found[level][0::2] for level in self.levels]
            after = [found[level][1::2] for level in self.levels]
            if not self.pairs_alone:
                return self.difference(before, after)
            first, _, change = self.difference(before, before)
            second, _, _ = self.difference(after, after)
            return first, second, change

        # forward() and generate() of transformers replace the image tokens by these features.
        def get_image_features(self, pixel_values: Tensor, *args: Any, **kwargs: Any) -> Any:
            before, after, _ = self.pair_features(pixel_values)
            # First and second images alternate, as in the batch that the plain model projects.
            images = torch.stack([before, after], dim=1).flatten(0, 1)
            projected = self.multi_modal_projector(images)
            features: Any = tuple(projected)  # one entry per image, as in the parent class
            return BaseModelOutputWithPooling(pooler_output=features)

    class PairLlava(LlavaOnevisionForConditionalGeneration):
        """LLaVA-OneVision for image pairs."""

        def __init__(self, config: Any, size: Any, difference: str, zero_gate: bool) -> None:
            # Skip the parent's __init__, which would also build a plain model.
            super(LlavaOnevisionForConditionalGeneration, self).__init__(config)
            self.model = PairModel(config, size, difference, zero_gate)
            text = config.text_config
            self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
            self.post_init()

        # The signature tells generate() which arguments it may pass.
        @wraps(LlavaOnevisionForConditionalGeneration.forward)
        def forward(  # type: ignore[override]
            self, *args: Any, labels: Tensor | None = None, **kwargs: Any
        ) -> Any:
            if labels is None:
                return super().forward(*args, **kwargs)
            # All logits would be (batch, 1500, 152000) at the paper's sizes, for 20 targets a pair.
            hidden = self.model(*args, **(kwargs | {"use_cache": False}))[0][:, :-1]
            targets = labels[:, 1:]
            is_target = targets != NO_TARGET
            logits = self.lm_head(hidden[is_target])
            return CausalLMOutput(cross_entropy(logits.float(), targets[is_target]), logits)

        @property
        def tokens_per_image(self) -> int:
            """Number of image tokens of each of the two images."""
            vision: Any = self.config.vision_config
            return (vision.image_size // vision.patch_size) ** 2

    return PairLlava
