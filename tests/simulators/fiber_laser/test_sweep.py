"""Parameter sweeps and bands over glasses."""

import pytest

from lightning_plugins.simulators.fiber_laser import (
    YTTERBIUM_GLASSES,
    Amplifier,
    Fiber,
    Pump,
    Signal,
    band_over_glasses,
    load_design,
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
