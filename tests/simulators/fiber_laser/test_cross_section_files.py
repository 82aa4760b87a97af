"""Reading of cross-section tables in common formats."""

import numpy as np
import pytest

from lightning_plugins.simulators.fiber_laser import load_spectroscopy, ytterbium

WAVELENGTHS = np.arange(900.0, 1101.0)
MODEL = ytterbium()


def rows(*columns, separator="\t", decimal=".", scale=1.0):
    lines = []
    for row in np.column_stack(columns):
        cells = [f"{row[0] * scale:.12g}", *(f"{value:.10g}" for value in row[1:])]
        lines.append(separator.join(cells).replace(".", decimal))
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("separator", "decimal", "scale"),
    [("\t", ".", 1.0), (",", ".", 1.0), (", ", ".", 1e-9), (";", ",", 1.0), ("  ", ",", 1e-9)],
)
def test_delimiters_decimal_commas_and_metres_are_detected(tmp_path, separator, decimal, scale):
    absorption, emission = MODEL.absorption_m2(WAVELENGTHS), MODEL.emission_m2(WAVELENGTHS)
    path = tmp_path / "glass.csv"
    path.write_text(
        "# a comment\nwavelength absorption emission\n"
        + rows(WAVELENGTHS, absorption, emission, separator=separator, decimal=decimal, scale=scale)
    )
    read = load_spectroscopy(path, lifetime_s=1e-3)
    assert read.range_nm == pytest.approx((900, 1100))
    assert read.absorption_m2(WAVELENGTHS) == pytest.approx(absorption, rel=1e-6)
    assert read.emission_m2(1018.0) == pytest.approx(MODEL.emission_m2(1018.0), rel=1e-6)
    assert read.mccumber_fit().temperature_k == pytest.approx(293.15, rel=1e-4)
    assert read.zero_line_nm == pytest.approx(MODEL.zero_line_nm, abs=0.1)


def test_columns_and_rows_may_be_in_any_order(tmp_path):
    absorption, emission = MODEL.absorption_m2(WAVELENGTHS), MODEL.emission_m2(WAVELENGTHS)
    path = tmp_path / "glass.txt"
    path.write_text(rows(WAVELENGTHS[::-1], emission[::-1], absorption[::-1]))
    read = load_spectroscopy(
        path, lifetime_s=1e-3, columns=("wavelength", "emission", "absorption")
    )
    assert read.absorption_m2(1030.0) == pytest.approx(MODEL.absorption_m2(1030.0), rel=1e-6)


def test_a_short_table_is_completed_by_mccumber(tmp_path):
    shorter = WAVELENGTHS[WAVELENGTHS <= 1060]
    (tmp_path / "a.dat").write_text(rows(shorter, MODEL.absorption_m2(shorter)))
    (tmp_path / "e.dat").write_text(rows(WAVELENGTHS, MODEL.emission_m2(WAVELENGTHS)))
    files = tmp_path / "a.dat", tmp_path / "e.dat"
    plain = load_spectroscopy(*files, lifetime_s=1e-3)
    with pytest.raises(ValueError, match="covers 900 to 1060 nm"):
        plain.absorption_m2(1064.0)
    completed = load_spectroscopy(*files, lifetime_s=1e-3, complete_by_mccumber=True)
    assert completed.absorption_m2(1090.0) == pytest.approx(MODEL.absorption_m2(1090.0), rel=1e-3)


def test_swapped_columns_warn(tmp_path):
    path = tmp_path / "glass.txt"
    path.write_text(
        rows(WAVELENGTHS, MODEL.absorption_m2(WAVELENGTHS), MODEL.emission_m2(WAVELENGTHS))
    )
    with pytest.warns(UserWarning, match="at -293 K .* Check for swapped columns"):
        load_spectroscopy(path, lifetime_s=1e-3, columns=("wavelength", "emission", "absorption"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1018 1e-25 5e-25\n1030 5e-26\n", "line 2: expected 3 numbers"),
        ("1018 1e-25 5e-25\n", "at least two lines"),
        ("1018 1e-25 5e-25\n1018 1e-25 5e-25\n", "is repeated"),
        ("1.018 1e-25 5e-25\n1.03 1e-25 5e-25\n", "neither nm nor m"),
        ("1018 1e-21 5e-21\n1030 1e-21 5e-21\n", "1 cm² is 1e-4 m²"),
        ("1018 -1e-25 5e-25\n1030 1e-25 5e-25\n", "are not in m²"),
    ],
)
def test_an_invalid_table_raises_with_the_line(tmp_path, text, message):
    path = tmp_path / "glass.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_spectroscopy(path, lifetime_s=1e-3)
