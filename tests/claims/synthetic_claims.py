"""A paper whose arms are numbers from a seeded generator; imported by path, also in workers."""

import os
import random
import signal
import time

from lightning_plugins.claims import (
    Claim,
    Column,
    Equivalence,
    Experiment,
    Paper,
    Recovers,
    Scale,
    Superiority,
)


def draw(config, seed):
    if config["overrides"].get("seconds"):
        time.sleep(config["overrides"]["seconds"])
    shared = random.Random(seed).gauss(0, 1)
    own = random.Random(f"{seed}{config['mean']}").gauss(0, 0.05)
    value = config["mean"] + shared + own
    return {"metrics": {"loss": value, "steps": 100.0}, "series": {"curve": [2 * value, value]}}


def fail_for_seed_one(config, seed):
    if seed == 1 and config["mean"] == 1.0:
        raise RuntimeError("the loss is not finite\nsecond line")
    return draw(config, seed)


def paper(run=draw, seconds=0.0, claims=None, seeds=(0, 1, 2, 3)):
    arms = {
        "sgd": {"recipe": "image/digits", "mean": 2.0},
        "tail": {"recipe": "image/digits+late_sam", "mean": 1.2},
        "sam": {"recipe": "image/digits", "overrides": {"rho": 0.1}, "mean": 1.0},
    }
    experiment = Experiment(
        name="switch",
        arms=arms,
        scales={
            "smoke": Scale(seeds=seeds, overrides={"seconds": seconds}),
            "paper": Scale(seeds=(0, 1), overrides={"trainer.max_epochs": 200, "tags": ["a b"]}),
        },
        run=run,
    )
    regime = {"experiment": "switch", "regime": "Gaussian numbers"}
    figure = {"paper_figure": "2.0 to 1.0", "source": "table 1"}
    if claims is None:
        claims = (
            Claim("better", "SAM is better.", rule=Superiority("loss", "sam", "sgd", "lower"),
                  **figure, **regime),
            Claim("recovers", "The tail has it.",
                  rule=Recovers("loss", "tail", ("sgd", "sam"), 0.5), **figure, **regime),
            Claim("same", "Tail equals SGD.", rule=Equivalence("loss", "tail", "sgd", 0.1),
                  **figure, **regime),
        )  # fmt: skip
    return Paper(
        name="synthetic",
        title="A synthetic paper",
        citation="Nobody, 2026",
        experiments=(experiment,),
        claims=claims,
        columns=(Column("loss", "loss", ".2f"), Column("steps", "steps", ".0f")),
    )


def die_for_last_seed(config, seed):
    if seed == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return draw(config, seed)


def count_threads(config, seed):
    import torch

    return {"metrics": {"loss": float(torch.get_num_threads())}}


def spoil_config(config, seed):
    config["overrides"]["rho"] = object()
    return draw({**config, "overrides": {}}, seed)
