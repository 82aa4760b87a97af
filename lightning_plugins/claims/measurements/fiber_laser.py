"""What one simulation of the fiber laser measures."""

from typing import Any

from lightning_plugins.claims.cell import Cell

GLASSES = (0, 1, 2, 3, 4)


def run_chain(config: dict[str, Any], seed: int) -> Cell:
    """Simulate the reference design in glass number ``seed``, or return the published figures."""
    if "published" in config:
        return {"metrics": dict(config["published"])}
    import numpy as np

    from lightning_plugins.simulators.fiber_laser import (
        FiberMount,
        load_design,
        tuning_curve,
        ytterbium_band,
    )
    from lightning_plugins.simulators.fiber_laser.reproduction import slope_efficiency
    from lightning_plugins.simulators.fiber_laser.sweep import with_glass

    design, glass = load_design(config["design"]), ytterbium_band()[seed]
    design = with_glass(design, glass)
    result = design.solve()
    assert design.seed_laser is not None
    cavity = design.seed_laser.cavity
    thermo_optic = np.linspace(6.1e-6, 8.6e-6, len(GLASSES))[seed]
    mount = FiberMount(thermo_optic_per_k=float(thermo_optic))
    curve = tuning_curve(cavity, np.linspace(1, 95, 48), mount)
    figures = result.summary()
    return {
        "metrics": {
            "output_w": figures["signal_out_w"],
            "slope": slope_efficiency(design.seeded_chain())[2],
            "ase_suppression_db": figures["ase_suppression_db"],
            "tuning_nm": curve.range_nm,
            "linewidth_hz": figures["seed_quantum_linewidth_hz"],
            "brillouin_w": figures["brillouin_threshold_low_w"],
        }
    }
