"""The books of a run, written where its logs are."""

import json
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule

from lightning_plugins.reports.atomic import write_text_atomically
from lightning_plugins.strategies.ledger import CommLedger
from lightning_plugins.strategies.mergeable import mergeable_parameters

REPORT_NAME = "communication.json"


def write_report(
    ledger: CommLedger, module: LightningModule, steps: int, num_agents: int
) -> dict[str, Any]:
    """Write ``communication.json`` of all agents' books, on the first agent.

    Returns:
        What it holds: :meth:`CommLedger.report`.
    """
    trainer = module.trainer
    model_bytes = sum(tensor.nbytes for tensor in mergeable_parameters(module).values())
    report = ledger.report(model_bytes, steps, num_agents)
    folder = trainer.log_dir  # asks the other agents, so all of them come here
    if trainer.is_global_zero and folder is not None:
        text = json.dumps(report, indent=2) + "\n"
        write_text_atomically(Path(folder) / REPORT_NAME, text)
    return report
