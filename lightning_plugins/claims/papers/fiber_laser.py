"""The claims on the 1018 nm fiber laser (arXiv 2407.19641), on a reference design of ours.

A simulator has no seeds; what it does not know is the glass. The five parametric glasses stand in
their place, and the thermo-optic coefficient is spread over its published range with them.
"""

from typing import Any

from lightning_plugins.claims.claim import Cell, Claim, Column, Experiment, Paper, Scale
from lightning_plugins.claims.rules import Equivalence, Superiority

_GLASSES = (0, 1, 2, 3, 4)
_REGIME = "a reference design; five glasses in place of seeds; the published geometry is unknown"
_SOURCE = "abstract; the body was not read"
_PUBLISHED = {
    "output_w": 120.0,
    "slope": 0.773,
    "ase_suppression_db": 60.0,
    "tuning_nm": 1.5,
    "linewidth_hz": 3250.0,
    "brillouin_w": 120.0,
}


def paper() -> Paper:
    """The published figures, and what the simulator gives without any calibration."""
    return Paper(
        name="fiber-laser",
        title="A single-frequency 1018 nm fiber laser of more than 120 W",
        citation="arXiv 2407.19641; only the abstract was read",
        experiments=(
            Experiment(
                name="chain",
                arms={
                    "reference design": {"design": "reference_1018"},
                    "published": {"published": _PUBLISHED},
                },
                scales={"smoke": Scale(seeds=_GLASSES[:3]), "cpu": Scale(seeds=_GLASSES)},
                run=run_chain,
            ),
        ),
        claims=tuple(
            Claim(
                name=name,
                statement=statement,
                paper_figure=figure,
                source=_SOURCE,
                experiment="chain",
                rule=rule,
                in_paper_regime=False,
                regime=_REGIME,
            )
            for name, statement, figure, rule in (
                (
                    "more than 120 W",
                    "A chain to a 25 µm core with 155 W of pump gives more than 120 W.",
                    "> 120 W",
                    Superiority("output_w", "reference design", "published", "higher"),
                ),
                (
                    "a slope of 77.3 % without a coupling loss",
                    "Output over launched pump rises with 77.3 %, within two points.",
                    "77.3 %",
                    Equivalence("slope", "reference design", "published", margin=0.02),
                ),
                (
                    "more than 60 dB above the ASE",
                    "The signal is more than 60 dB above the ASE in 0.02 nm.",
                    "> 60 dB; the resolution is not in the abstract",
                    Superiority("ase_suppression_db", "reference design", "published", "higher"),
                ),
                (
                    "1.5 nm of tuning by silica alone",
                    "Bare silica tunes the seed by more than 1.5 nm over 1-95 °C.",
                    "> 1.5 nm; the mount is not in the abstract",
                    Superiority("tuning_nm", "reference design", "published", "higher"),
                ),
                (
                    "a quantum limit below the seed's linewidth",
                    "The Schawlow-Townes linewidth is below 3.25 kHz.",
                    "3.25 kHz",
                    Superiority("linewidth_hz", "reference design", "published", "lower"),
                ),
                (
                    "120 W below the Brillouin threshold",
                    "With a Brillouin gain of 5e-11 m/W the threshold is above 120 W.",
                    "120 W of one frequency",
                    Superiority("brillouin_w", "reference design", "published", "higher"),
                ),
            )
        ),
        columns=(
            Column("output_w", "output W", ".1f"),
            Column("slope", "slope", ".3f"),
            Column("ase_suppression_db", "ASE dB", ".1f"),
            Column("tuning_nm", "tuning nm", ".2f"),
            Column("linewidth_hz", "linewidth Hz", ".3g"),
            Column("brillouin_w", "SBS W", ".0f"),
        ),
        next_steps=(
            "fiber-laser reproduce                 (the table with what was calibrated)",
            "fiber-laser run reference_1018        (profiles and spectra of every stage)",
        ),
    )


def run_chain(config: dict[str, Any], seed: int) -> Cell:
    """Figures of the reference design in the glass of that place, or the published ones."""
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
    thermo_optic = np.linspace(6.1e-6, 8.6e-6, len(_GLASSES))[seed]
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
