"""Every use of a private Lightning or torchmetrics interface, and the fallback if it is missing.

Tested with lightning and pytorch-lightning 2.6.6 and torchmetrics 1.9. Each file lists its private
interfaces. Unless stated otherwise, a missing interface raises an ``AttributeError``.

``LightningCLI._add_configure_optimizers_method_to_model``, which passes parameter names to
optimizers, is used in ``cli.plugin_cli``.
"""

from lightning_plugins._lightning_compat.closures import (
    Passes,
    WrapClosure,
    has_wrapped_closures,
    passes_of,
    preserved_metrics,
    replace_batches,
    step_arguments,
    wrap_closures,
)
from lightning_plugins._lightning_compat.loaders import (
    EpochIterators,
    count_resumed_batches,
    disable_sampler_replacement,
    load_pending_loader_states,
    rebuilt_training_loader,
    with_sampler,
)
from lightning_plugins._lightning_compat.loops import (
    before_each_batch,
    callbacks_of,
    fitting_trainer,
    largest_accumulation_factor,
    logs_at_this_step,
    names_of_logged_values,
    optimizer_steps,
    request_stop,
    run_validation,
    steps_of_epochs,
    steps_the_optimizer,
)
from lightning_plugins._lightning_compat.processes import (
    Sharding,
    connect_processes,
    data_share,
    default_backend,
    default_store,
    finds_unused_parameters,
    give_device_mesh,
    model_parallel_sizes,
    no_gradient_synchronization,
    optimizers_to_device,
    prepare_manual_backward,
    process_launcher,
    restart_seed,
    started_processes,
    uses_static_graph,
    wrapped_in_ddp,
)

__all__ = [
    "EpochIterators",
    "Passes",
    "Sharding",
    "WrapClosure",
    "before_each_batch",
    "callbacks_of",
    "connect_processes",
    "count_resumed_batches",
    "data_share",
    "default_backend",
    "default_store",
    "disable_sampler_replacement",
    "finds_unused_parameters",
    "fitting_trainer",
    "give_device_mesh",
    "has_wrapped_closures",
    "largest_accumulation_factor",
    "load_pending_loader_states",
    "logs_at_this_step",
    "model_parallel_sizes",
    "names_of_logged_values",
    "no_gradient_synchronization",
    "optimizer_steps",
    "optimizers_to_device",
    "passes_of",
    "prepare_manual_backward",
    "preserved_metrics",
    "process_launcher",
    "rebuilt_training_loader",
    "replace_batches",
    "request_stop",
    "restart_seed",
    "run_validation",
    "started_processes",
    "step_arguments",
    "steps_of_epochs",
    "steps_the_optimizer",
    "uses_static_graph",
    "with_sampler",
    "wrap_closures",
    "wrapped_in_ddp",
]
