"""Cross-sections: the parametric glasses, their consistency, their temperature."""

import numpy as np
import pytest

from lightning_plugins.simulators.fiber_laser import (
    YTTERBIUM_GLASSES,
    ytterbium,
    ytterbium_band,
)

# Absorption at 915, 976, 1000, 1018, 1030 nm, then emission at 976, 1000, 1018, 1030, 1045, 1064
# and 1090 nm, in 1e-25 m², read off published tables.
ABSORPTION_NM = (915, 976, 1000, 1018, 1030)
WIDE_NM = np.linspace(895, 1130, 2351)
EMISSION_NM = (976, 1000, 1018, 1030, 1045, 1064, 1090)
ANCHORS = {
    "germanosilicate": (
        (8.102, 25.832, 0.947, 0.792, 0.532),
        (26.035, 3.031, 5.666, 6.372, 4.473, 3.126, 2.047),
        0.06,
    ),
    "aluminosilicate": (
        (8.271, 26.806, 1.184, 0.857, 0.511),
        (25.967, 4.286, 7.218, 8.444, 5.67, 3.855, 2.815),
        0.06,
    ),
    "ysf": (
        (6.955, 19.318, 1.158, 0.804, 0.433),
        (19.772, 3.966, 6.556, 6.193, 3.564, 2.298, 1.368),
        0.025,
    ),
    "liekki": (
        (6.73, 25.0, 1.11, 0.832, 0.453),
        (24.4, 3.61, 6.49, 6.43, 3.95, 2.5, 1.67),
        0.025,
    ),
    "gen8": (
        (5.693, 17.669, 1.324, 0.944, 0.562),
        (17.131, 4.296, 7.301, 7.634, 5.412, 3.978, 1.895),
        0.025,
    ),
}


@pytest.mark.parametrize("glass", YTTERBIUM_GLASSES)
def test_glasses_match_their_published_values(glass):
    absorption, emission, within = ANCHORS[glass]
    model = ytterbium(glass)
    found = np.r_[model.absorption_m2(ABSORPTION_NM), model.emission_m2(EMISSION_NM)]
    assert np.abs(found / np.r_[absorption, emission] * 1e25 - 1).max() < within


@pytest.mark.parametrize("glass", YTTERBIUM_GLASSES)
def test_emission_and_absorption_obey_mccumber_at_every_temperature(glass):
    for temperature in (250.0, 293.15, 400.0):
        fit = ytterbium(glass).at_temperature(temperature).mccumber_fit()
        assert fit.temperature_k == pytest.approx(temperature, rel=1e-9)
        assert fit.rms < 1e-9
        assert 974 < fit.zero_line_nm < 978


@pytest.mark.parametrize("glass", YTTERBIUM_GLASSES)
def test_changes_with_temperature_have_the_published_signs(glass):
    """Moore et al., Opt. Commun. 284, 5774 (2011)."""
    cold, hot = (ytterbium(glass).at_temperature(kelvin) for kelvin in (293.15, 373.15))
    absorption = hot.absorption_m2(WIDE_NM) / cold.absorption_m2(WIDE_NM) - 1
    emission = hot.emission_m2(WIDE_NM) / cold.emission_m2(WIDE_NM) - 1
    at = {nm: np.argmin(np.abs(WIDE_NM - nm)) for nm in (915, 920, 976, 977, 995, 1018, 1064, 1090)}
    assert -0.10 < absorption[at[915]] < -0.08
    assert -0.10 < absorption[at[920]] < -0.07
    assert -0.20 < absorption[at[976]] < -0.08
    assert -0.20 < emission[at[977]] < -0.07
    for nm in (1018, 1064, 1090):
        assert absorption[at[nm]] > 0.2
        assert -0.12 < emission[at[nm]] < 0
    assert emission[at[995]] > 0


@pytest.mark.parametrize("glass", YTTERBIUM_GLASSES)
@pytest.mark.parametrize("kelvin", [220.0, 330.0, 500.0])
def test_sum_rules_do_not_depend_on_temperature(glass, kelvin):
    cold, hot = ytterbium(glass), ytterbium(glass).at_temperature(kelvin)
    energy = 1e7 / WIDE_NM
    for weight, found in ((1.0, "absorption_m2"), (energy**2, "emission_m2")):
        sums = [
            np.trapezoid(weight * getattr(model, found)(WIDE_NM), energy) for model in (cold, hot)
        ]
        assert sums[1] == pytest.approx(sums[0], rel=1e-4)
    assert hot.absorption_m2(WIDE_NM).min() > 0
    assert hot.emission_m2(WIDE_NM).min() > 0


def test_the_reference_temperature_is_reached_continuously():
    exact, near = ytterbium(), ytterbium().at_temperature(293.15 + 1e-6)
    assert near.absorption_m2(WIDE_NM) == pytest.approx(exact.absorption_m2(WIDE_NM), rel=1e-6)
    assert near.emission_m2(WIDE_NM) == pytest.approx(exact.emission_m2(WIDE_NM), rel=1e-6)


def test_transparency_at_1018_nm_is_in_the_published_range():
    transparency = [float(glass.transparency(1018)) for glass in ytterbium_band()]
    assert 0.104 < min(transparency) < max(transparency) < 0.125


@pytest.mark.parametrize("wavelength", [800.0, 1200.0, np.nan])
def test_a_wavelength_outside_the_range_raises_with_the_range(wavelength):
    with pytest.raises(ValueError, match=r"wavelength_nm = .* nm: .*895 to 1130 nm"):
        ytterbium().emission_m2([1018.0, wavelength])


def test_invalid_glass_lifetime_and_temperature_raise():
    with pytest.raises(ValueError, match="glass = 'erbium': allowed is germanosilicate"):
        ytterbium("erbium")
    with pytest.raises(ValueError, match="lifetime_s = 0 s: allowed is more than 0 s"):
        ytterbium(lifetime_s=0)
    with pytest.raises(ValueError, match="temperature_k = 20 K: allowed is at least 200 K"):
        ytterbium().at_temperature(20)
