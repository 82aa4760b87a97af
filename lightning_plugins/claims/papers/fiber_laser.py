"""The claims on the 1018 nm fiber laser (arXiv 2407.19641), on two designs of ours.

A simulator has no seeds; the unknown quantity is the glass. Five parametric glasses take the place
of seeds, and the thermo-optic coefficient varies over its published range with them.
"""

from lightning_plugins.claims.claim import Claim, Column, Experiment, Paper, Scale, claims_on
from lightning_plugins.claims.measurements.fiber_laser import GLASSES, run_chain
from lightning_plugins.claims.rules import Equivalence, Superiority

_ARMS = ("reference design", "published")
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
    return Paper(
        name="fiber-laser",
        title="A single-frequency 1018 nm fiber laser of more than 120 W",
        citation="arXiv 2407.19641; we read only the abstract",
        experiments=(chain,),
        claims=_claims(),
        columns=(
            Column("output_w", "output W", ".1f"),
            Column("slope", "slope", ".3f"),
            Column("ase_suppression_db", "ASE dB", ".1f"),
            Column("tuning_nm", "tuning nm", ".2f"),
            Column("linewidth_hz", "linewidth Hz", ".3g"),
            Column("brillouin_w", "SBS W", ".0f"),
        ),
        next_steps=(
            "fiber-laser reproduce                 (the table, with the calibrated values)",
            "fiber-laser run reference_1018        (profiles and spectra of every stage)",
        ),
    )


def _claims() -> tuple[Claim, ...]:
    source = "abstract; we did not read the body"
    return claims_on(
        "chain",
        "a reference design; five glasses in place of seeds; the published geometry is unknown",
        (
            "more than 120 W",
            "A chain that ends in a 25 µm core outputs more than 120 W at 155 W of pump power.",
            Superiority("output_w", *_ARMS, "higher", smallest_effect=1.0),
            "> 120 W",
            source,
        ),
        (
            "a slope of 77.3 % without a coupling loss",
            "Output power over launched pump power has a slope of 77.3 %, within two points.",
            Equivalence("slope", *_ARMS, margin=0.02),
            "77.3 %",
            source,
        ),
        (
            "more than 60 dB above the ASE",
            "The signal is more than 60 dB above the ASE in 0.02 nm.",
            Superiority("ase_suppression_db", *_ARMS, "higher", smallest_effect=1.0),
            "> 60 dB; the abstract does not give the resolution",
            source,
        ),
        (
            "1.5 nm of tuning by silica alone",
            "Bare silica tunes the seed by more than 1.5 nm over 1-95 °C.",
            Superiority("tuning_nm", *_ARMS, "higher", smallest_effect=0.1),
            "> 1.5 nm; the abstract does not describe the mount",
            source,
        ),
        (
            "a quantum limit below the seed's linewidth",
            "The Schawlow-Townes linewidth is below 3.25 kHz.",
            Superiority("linewidth_hz", *_ARMS, "lower", smallest_effect=100.0),
            "3.25 kHz",
            source,
        ),
        (
            "120 W below the Brillouin threshold",
            "With a Brillouin gain of 5e-11 m/W the threshold is above 120 W.",
            Superiority("brillouin_w", *_ARMS, "higher", smallest_effect=1.0),
            "120 W at a single frequency",
            source,
        ),
        (
            "120 W below the Brillouin threshold, counter-pumped",
            "A shorter, counter-pumped last stage, which we designed with this simulator, has a "
            "threshold above 120 W at a Brillouin gain of 5e-11 m/W.",
            Superiority(
                "brillouin_w", "counter-pumped", "published", "higher", smallest_effect=1.0
            ),
            "120 W at a single frequency",
            source,
        ),
        (
            "more than 120 W, counter-pumped",
            "The chain with that last stage outputs more than 120 W.",
            Superiority("output_w", "counter-pumped", "published", "higher", smallest_effect=1.0),
            "> 120 W",
            source,
        ),
        ours=(
            "120 W below the Brillouin threshold, counter-pumped",
            "more than 120 W, counter-pumped",
        ),
    )
