"""LLaVA-OneVision for two images, with what differs between them put into their features."""

from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_plugins.litmodels.change_captioning.network_sizes import SIZES, Size
from lightning_plugins.nn.change import DifferenceAwareIntegration

Difference = Literal["integrate", "alone", "none"]


def build_network(
    size: Size = "tiny", difference: Difference = "integrate", zero_gate: bool = True
) -> Any:
    """A ``LlavaOnevisionForConditionalGeneration`` with random weights that reads image pairs.

    ``forward`` and ``generate`` take ``pixel_values`` ``(batch, 2, 3, height, width)``, in [-1, 1]
    as SigLIP wants them. Each image fills ``network.tokens_per_image`` image tokens of
    ``input_ids``; no newline token follows.

    Weights that nothing depends on (the tower's last norm, the newline) do not require gradients,
    so DDP need not look for them.

    Args:
        size: ``tiny`` (0.4 M parameters), or the two sizes of LLaVA-OneVision that CCExpert uses.
        difference: ``integrate`` the pair's difference, as CCExpert does, between the vision tower
            and the projector; give the same module each image ``alone``, twice, which is a control
            with the same parameters and no sight of the change; or ``none``, plain LLaVA-OneVision.
        zero_gate: of :class:`~lightning_plugins.nn.change.DifferenceAwareIntegration`.

    Raises:
        ValueError: an unknown name.
        ImportError: without transformers 5.
    """
    if size not in SIZES:
        raise ValueError(f"size={size!r}: expected one of {', '.join(map(repr, SIZES))}")
    if difference not in ("integrate", "alone", "none"):
        raise ValueError(f"difference={difference!r}: expected 'integrate', 'alone' or 'none'")
    network = _pair_llava()(_configuration(size), SIZES[size], difference, zero_gate)
    for unused in (network.model.vision_tower.post_layernorm, network.model.image_newline):
        unused.requires_grad_(False)
    return network


def with_lora(network: Any, rank: int) -> Any:
    """The network with low-rank changes of its language model's queries and values (peft).

    Beside these, the projector and the difference module are trained, and nothing else.

    Raises:
        ImportError: without peft.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise ImportError(
            f'lora_rank={rank} needs peft: pip install "lightning-plugins[text]"'
        ) from error
    whole = ["multi_modal_projector"] + ["difference"] * (network.model.difference is not None)
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=r".*language_model.*\.(q_proj|v_proj)",
        modules_to_save=whole,
    )
    return get_peft_model(network, config)


def _configuration(size: Size) -> Any:
    try:
        from transformers import LlavaOnevisionConfig, Qwen2Config, SiglipVisionConfig
    except ImportError as error:
        raise ImportError(
            "change captioning needs transformers 5 or later: "
            'pip install "lightning-plugins[text]" "transformers>=5"'
        ) from error
    chosen = SIZES[size]
    return LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**chosen.vision),
        text_config=Qwen2Config(**chosen.text),
        image_token_index=chosen.image_token_id,
        video_token_index=-1,  # no token is one of a video
        tie_word_embeddings=chosen.text["tie_word_embeddings"],
    )


# Made inside a function, because transformers is optional; once, so that the class is one.
@cache
def _pair_llava() -> type:
    from transformers import LlavaOnevisionForConditionalGeneration, LlavaOnevisionModel
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    class PairModel(LlavaOnevisionModel):
        """The vision tower, the difference module, the projector and the language model."""

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
                module.reset_parameters()  # after its parts, which transformers draws first
            else:
                super()._init_weights(module)

        def pair_features(self, pixel_values: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
            """Features of the first images, the second ones, and of the change where there is one.

            Args:
                pixel_values: ``(batch, 2, 3, height, width)``.

            Returns:
                ``(batch, tokens, dim)`` each, before the projector.
            """
            images = pixel_values.flatten(0, 1)  # first and second in turn
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

        # forward() and generate() of transformers call it and put the features in their places.
        def get_image_features(self, pixel_values: Tensor, *args: Any, **kwargs: Any) -> Any:
            before, after, _ = self.pair_features(pixel_values)
            # In the order of the images, which is also what the plain model projects at once.
            images = torch.stack([before, after], dim=1).flatten(0, 1)
            projected = self.multi_modal_projector(images)
            features: Any = tuple(projected)  # one entry an image, as the parent's
            return BaseModelOutputWithPooling(pooler_output=features)

    class PairLlava(LlavaOnevisionForConditionalGeneration):
        """LLaVA-OneVision whose images come in pairs."""

        def __init__(self, config: Any, size: Any, difference: str, zero_gate: bool) -> None:
            # Past the parent's, which would make a second, plain model.
            super(LlavaOnevisionForConditionalGeneration, self).__init__(config)
            self.model = PairModel(config, size, difference, zero_gate)
            text = config.text_config
            self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
            self.post_init()

        @property
        def tokens_per_image(self) -> int:
            """Image tokens that each of the two images fills."""
            vision: Any = self.config.vision_config
            return (vision.image_size // vision.patch_size) ** 2

    return PairLlava
