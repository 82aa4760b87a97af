"""Invalid amplifiers raise with the allowed range; problematic ones warn."""

from dataclasses import replace

import numpy as np
import pytest

from lightning_plugins.simulators.fiber_laser import (
    Amplifier,
    AseBand,
    Fiber,
    PhysicalWarning,
    Pump,
    Reflector,
    Signal,
    quantum_limit_w,
)

FIBER = Fiber(1.0, 20, 0.08, 8e25, cladding_diameter_um=130)
AMPLIFIER = Amplifier(FIBER, (Pump(976, 50),), (Signal(1018, 1),))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: replace(FIBER, length_m=0), r"length_m = 0 m: allowed is more than 0 m"),
        (lambda: replace(FIBER, length_m=float("nan")), r"length_m = nan m"),
        (lambda: replace(FIBER, core_na=1.5), r"core_na = 1\.5: .* at most 1"),
        (lambda: replace(FIBER, ytterbium_per_m3=-1), r"ytterbium_per_m3 = -1 1/m³"),
        (lambda: replace(FIBER, background_loss_per_m=-1), r"background_loss_per_m = -1 1/m"),
        (
            lambda: replace(FIBER, cladding_diameter_um=10),
            r"cladding_diameter_um = 10 µm: allowed is at least 20 µm",
        ),
        (lambda: Signal(1018, -1), r"power_w = -1 W: allowed is at least 0 W"),
        (lambda: Pump(0, 1), r"wavelength_nm = 0 nm: allowed is more than 0 nm"),
        (lambda: Pump(976, "much"), r"power_w = 'much': expected a number in W"),
        (lambda: Pump(976, 1, "sideways"), r"direction = 'sideways': allowed is 'forward' or"),
        (lambda: AseBand(1100, 1000), r"to_nm = 1000 nm: allowed is more than 1100 nm"),
        (lambda: AseBand(polarisations=3), r"polarisations = 3 modes: .* at most 2 modes"),
        (
            lambda: Reflector("end", 1.2),
            r"reflectivity = 1\.2: allowed is at least 0 and",
        ),
        (lambda: Reflector("middle", 0.5), r"end = 'middle': allowed is 'start' or 'end'"),
        (lambda: Amplifier(FIBER, ()), r"pumps = \(\): an amplifier needs at least one Pump"),
        (
            lambda: replace(AMPLIFIER, ase_forward_in_w=np.ones(3)),
            r"ase_forward_in_w: expected 40 powers of at least 0 W",
        ),
        (
            lambda: replace(AMPLIFIER, ase_backward_in_w=-np.ones(40)),
            r"ase_backward_in_w: expected 40 powers",
        ),
        (
            lambda: AMPLIFIER.solve(grid_tolerance=0),
            r"grid_tolerance = 0: .* at least 1e-06",
        ),
        (
            lambda: replace(AMPLIFIER, signals=(Signal(1550, 1),)).solve(),
            r"wavelength_nm = 1550 nm: spectroscopy 'aluminosilicate' covers 895 to 1130 nm",
        ),
        (
            lambda: replace(AMPLIFIER, ase=AseBand(850, 1000)).solve(),
            r"wavelength_nm = 8\d\d.* nm: spectroscopy .* covers 895",
        ),
        (
            lambda: replace(AMPLIFIER, fiber=replace(FIBER, cladding_diameter_um=None)).solve(),
            r"cladding_diameter_um is not given: a pump in the cladding needs it",
        ),
        (
            lambda: replace(AMPLIFIER, fiber=Fiber(1.0, 2, 0.08, 8e25, 130)).solve(),
            r"core_diameter_um = 2 µm with core_na = 0\.08: V = .* allowed is at least 0\.8",
        ),
        (lambda: replace(AMPLIFIER, signals=()).solve().signal_out_w, r"signals = \(\)"),
        (lambda: replace(AMPLIFIER, ase=None).solve().ase_suppression_db(), r"ase = None"),
        (lambda: AMPLIFIER.solve().ase_suppression_db(0), r"resolution_nm = 0 nm"),
        (lambda: quantum_limit_w(-1, 1, 976, 1018), r"signal_in_w = -1 W"),
    ],
)
def test_invalid_input_raises(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_gain_near_parasitic_lasing_warns():
    long = Amplifier(replace(FIBER, length_m=6.0), (Pump(976, 150),), (Signal(1018, 0.01),))
    with pytest.warns(PhysicalWarning, match=r"parasitic lasing: the .* gain at 10\d\d nm is"):
        long.solve()


def test_a_fiber_without_pump_light_warns():
    dark = replace(AMPLIFIER, pumps=(Pump(976, 0.0),))
    with pytest.warns(PhysicalWarning, match="the pump power is 0 W: the fiber only absorbs"):
        result = dark.solve()
    assert result.signal_out_w < 1


def test_a_sound_amplifier_does_not_warn(recwarn):
    Amplifier(replace(FIBER, length_m=0.5), (Pump(976, 50),), (Signal(1018, 5),)).solve()
    assert not recwarn.list
