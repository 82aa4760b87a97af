"""Every use of a private Lightning or torchmetrics interface, and the fallback if it is missing.

Tested with lightning and pytorch-lightning 2.6.6 and torchmetrics 1.9. Each file lists its private
interfaces. Unless stated otherwise, a missing interface raises an ``AttributeError``.

``LightningCLI._add_configure_optimizers_method_to_model``, which passes parameter names to
optimizers, is used in ``cli.plugin_cli``.
"""
