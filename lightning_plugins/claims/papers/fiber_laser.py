"""The claims on the 1018 nm fiber laser (arXiv 2407.19641), on two designs of ours.

A simulator has no seeds; the unknown quantity is the glass. Five parametric glasses take the place
of seeds, and the thermo-optic coefficient varies over its published range with them.
"""

from lightning_plugins.claims.claim import Experiment, Paper, Scale
from lightning_plugins.claims.claim_tables import read_paper
from lightning_plugins.claims.measurements.fiber_laser import GLASSES, run_chain

_PUBLISHED = {
    "output_w": 120.0,
    "slope": 0.773,
    "ase_suppression_db": 60.0,
    "tuning_nm": 1.5,
    "linewidth_hz": 3250.0,
    "brillouin_w": 120.0,
}


def paper() -> Paper:
    """Return the published figures and the results of the simulator without any calibration."""
    chain = Experiment(
        name="chain",
        arms={
            "reference design": {"design": "reference_1018"},
            "counter-pumped": {"design": "counter_pumped_1018"},
            "published": {"published": _PUBLISHED},
        },
        scales={"smoke": Scale(seeds=GLASSES[:3]), "cpu": Scale(seeds=GLASSES)},
        run=run_chain,
    )
    return read_paper(__file__, chain)
