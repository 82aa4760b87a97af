"""The books of a run, written where its logs are."""

import json
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule

from lightning_plugins.reports.atomic import write_text_atomically
from lightning_plugins.strategies.ledger import CommLedger
from lightning_plugins.strategies.mergeable import mergeable_parameters

REPORT_NAME = "communication.json"


def write_report(strategy: Any, module: LightningModule) -> dict[str, Any]:
    """Gather the agents' ledgers; the first agent writes ``communication.json``.

    Returns:
        What it holds: :meth:`CommLedger.report` of all agents.
    """
    own = json.dumps(strategy.ledger.state_dict()).encode()
    parts = strategy.peers.gather_bytes(own, strategy.root_device)
    ledger = CommLedger.merged(json.loads(part) for part in parts)
    model_bytes = sum(tensor.nbytes for tensor in mergeable_parameters(module).values())
    steps = module.trainer.global_step // max(1, len(strategy.optimizers))
    report = ledger.report(model_bytes, steps, strategy.world_size)
    folder = module.trainer.log_dir
    if strategy.is_global_zero and folder is not None:
        text = json.dumps(report, indent=2) + "\n"
        write_text_atomically(Path(folder) / REPORT_NAME, text)
    return report
