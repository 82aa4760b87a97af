"""What a checkpoint of a language model stores besides its weights."""

from typing import Any

from torch import nn

from lightning_plugins.litmodels.language_model.network import ends_of_text, mark_end_of_document
from lightning_plugins.litmodels.language_model.pretrained import configuration_arguments


class StoredSettings:
    """The part of ``CausalLM`` that stores what replaces the pretrained folder.

    It also stores the token that ends a document.
    """

    CHECKPOINT_HYPER_PARAMS_KEY: str
    network: nn.Module | None
    config: Any
    hparams: Any
    vocab_size: int
    context_length: int | None
    _pretrained: str | None
    _end_of_document: int | None
    _generation_defaults: dict[str, Any] | None

    def _adopt_end_of_document(self, end_of_document: int, owner: str) -> None:
        given = self.hparams.get("config") or {}
        has_own = self._pretrained is not None or self._generation_defaults is not None
        if "eos_token_id" in given or (has_own and ends_of_text(self.config)):
            if end_of_document not in (ends := ends_of_text(self.config)):
                remedy = (
                    "remove eos_token_id from config"
                    if "eos_token_id" in given
                    else f"use its tokenizer, such as tokenizer={self._pretrained or 'FOLDER'!r}"
                )
                raise ValueError(
                    f"config.eos_token_id={ends[0] if len(ends) == 1 else list(ends)}: a document "
                    f"of {owner} ends with the token {end_of_document}; {remedy}"
                )
            return
        self._end_of_document = end_of_document
        mark_end_of_document(self.network, self.config, end_of_document, given)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store what replaces the pretrained folder, and the token that ends a document."""
        if self._pretrained is not None:
            checkpoint[self.CHECKPOINT_HYPER_PARAMS_KEY].update(
                pretrained=None,
                architecture=self.config.model_type,
                vocab_size=self.vocab_size,
                context_length=self.context_length,
                config=configuration_arguments(self.config),
                residual_scaling=False,
            )
        if self._pretrained is not None and self.network is not None:
            defaults: Any = self.network.generation_config
            self._generation_defaults = defaults.to_diff_dict()
        if self._generation_defaults is not None:
            checkpoint["generation_defaults"] = self._generation_defaults
        if self._end_of_document is not None:
            checkpoint["end_of_document"] = self._end_of_document

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the settings of generation, and the token that ends a document."""
        self._generation_defaults = checkpoint.get("generation_defaults")
        self._restore_generation(self.network)
        end_of_document = checkpoint.get("end_of_document")
        if end_of_document is not None and self._end_of_document is None:
            self._end_of_document = end_of_document
            given = self.hparams.get("config") or {}
            mark_end_of_document(self.network, self.config, end_of_document, given)

    def _restore_generation(self, network: Any) -> None:
        """Give a network the settings of generation of the folder that it came from."""
        if self._generation_defaults is None or self._pretrained is not None or network is None:
            return
        from transformers import GenerationConfig

        network.generation_config = GenerationConfig.from_dict(dict(self._generation_defaults))
