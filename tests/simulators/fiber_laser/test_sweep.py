"""Parameter sweeps and bands over glasses."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

from lightning_plugins.simulators.fiber_laser import (
    YTTERBIUM_GLASSES,
    Amplifier,
    ConvergenceError,
    Fiber,
    Pump,
    Signal,
    SweepWarning,
    band_over_glasses,
    load_design,
    sweep,
    ytterbium,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore::lightning_plugins.simulators.fiber_laser.PhysicalWarning"
)
AMPLIFIER = Amplifier(
    Fiber(0.8, 20, 0.08, 8e25, cladding_diameter_um=130),
    (Pump(976, 150),),
    (Signal(1018, 10),),
    spectroscopy=ytterbium(lifetime_s=0.9e-3).at_temperature(320),
)


def test_a_band_has_each_glass_at_the_temperature_and_lifetime_of_the_design():
    band = band_over_glasses(AMPLIFIER)["signal_out_w"]
    assert tuple(band.by_glass) == YTTERBIUM_GLASSES
    own = AMPLIFIER.solve().signal_out_w
    assert band.by_glass["aluminosilicate"] == pytest.approx(own, rel=1e-12)
    assert band.low < own <= band.high
    # The five published tables differ in this design by some ten per cent.
    assert 1.05 < band.high / band.low < 1.3


def test_a_band_of_a_design_also_changes_the_seed_laser():
    band = band_over_glasses(load_design("reference_1018"))
    seeds = band["seed_w"].by_glass
    assert len(set(seeds.values())) == 5
    assert band["signal_out_w"].low > 120


def test_glasses_of_the_same_name_raise():
    with pytest.raises(ValueError, match="different names"):
        band_over_glasses(AMPLIFIER, glasses=[ytterbium(), ytterbium()])


@dataclass(frozen=True)
class Fails:
    """A design without a steady state at one power."""

    power_w: float = 1.0
    at: float = 3.0

    def solve(self, *, guess=None):
        if self.power_w == self.at:
            raise ConvergenceError("no steady state")
        return SimpleNamespace(summary=lambda: {"signal_out_w": self.power_w / 2})


def test_a_point_without_a_steady_state_is_nan_and_the_sweep_continues():
    with pytest.warns(SweepWarning, match="power_w = 3: ConvergenceError: no steady state"):
        points = sweep(Fails(), "power_w", [1, 2, 3, 4, 5])
    found = [point["signal_out_w"] for point in points]
    assert found == pytest.approx([0.5, 1.0, np.nan, 2.0, 2.5], nan_ok=True)


def test_a_sweep_without_any_result_raises():
    with pytest.raises(ConvergenceError, match="power_w: no value has a steady state"):
        sweep(Fails(at=2.0), "power_w", [2.0, 2.0])


def test_an_invalid_value_is_a_failed_point():
    with pytest.warns(SweepWarning, match=r"length_m = -1: ValueError: length_m = -1 m"):
        points = sweep(AMPLIFIER, "fiber.length_m", [-1.0, 0.5])
    assert np.isnan(points[0]["signal_out_w"])
    assert points[1]["signal_out_w"] > 10


def test_an_overwritten_input_raises_and_an_input_without_effect_warns():
    design = load_design("reference_1018")
    for path, message in (
        ("chain.seed.power_w", "the output of seed_laser overwrites chain.seed"),
        ("chain.seed.wavelength_nm", "the output of seed_laser overwrites chain.seed"),
        ("seed_mount.strain_transfer", "affects only temperature tuning"),
    ):
        with pytest.raises(ValueError, match=message):
            sweep(design, path, [0.001, 0.1])
    with pytest.warns(SweepWarning, match=r"surroundings\.observation_s has no effect"):
        sweep(design, "surroundings.observation_s", [1e-3, 1e-2])
    with pytest.raises(ValueError, match="'weight' is not one of"):
        sweep(design, "chain.weight", [1.0, 2.0])
