"""Cross-sections from text files: any delimiter, decimal point or comma, nm or m."""

import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .file_limits import quoted
from .quantities import SECOND_RADIATION_CONSTANT, Array
from .spectroscopy import Spectroscopy

_PLAUSIBLE_K = (230.0, 370.0)  # five published tables taken at room temperature give 281 to 306 K
_PLAUSIBLE_RMS = 0.2
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


def load_spectroscopy(
    absorption_file: str | os.PathLike[str],
    emission_file: str | os.PathLike[str] | None = None,
    *,
    lifetime_s: float,
    columns: tuple[str, ...] = ("wavelength", "absorption", "emission"),
    complete_by_mccumber: bool = False,
    name: str | None = None,
) -> Spectroscopy:
    """Read cross-sections from one file of three columns or from two files of two columns.

    Wavelengths are in nm, or in m if all are below 1e-3. Cross-sections are in m². Values between
    the points are interpolated linearly.

    Args:
        absorption_file: Wavelength and absorption, or all three columns.
        emission_file: Wavelength and emission, if they are in a separate file.
        lifetime_s: Lifetime of the upper manifold in s.
        columns: Order of the columns of a file with all three.
        complete_by_mccumber: Whether to compute a cross-section that is missing or zero at a
            wavelength from the other one, by the McCumber relation fitted where both are positive.
        name: Name in results; default: the name of the file.

    Warns:
        UserWarning: The two cross-sections are not consistent by the McCumber relation.

    Raises:
        ValueError: A line cannot be read, a wavelength is repeated or its unit is unknown, the
            cross-sections cannot be in m², or the files do not overlap.
    """
    if emission_file is None:
        if sorted(columns) != ["absorption", "emission", "wavelength"]:
            raise ValueError(
                f"columns = {columns!r}: expected wavelength, absorption "
                "and emission in the order of the file"
            )
        rows = _read(Path(absorption_file), 3)
        by_name = dict(zip(columns, rows.T, strict=True))
        wavelength = by_name["wavelength"]
        absorption = _table(wavelength, by_name["absorption"], absorption_file)
        emission = _table(wavelength, by_name["emission"], absorption_file)
    else:
        first, second = _read(Path(absorption_file), 2), _read(Path(emission_file), 2)
        absorption = _table(first[:, 0], first[:, 1], absorption_file)
        emission = _table(second[:, 0], second[:, 1], emission_file)
    tables = (absorption, emission)
    low = max(table.wavelength_nm[0] for table in tables)
    high = min(table.wavelength_nm[-1] for table in tables)
    if low >= high:
        raise ValueError(
            f"{absorption_file} and {emission_file} do not overlap: "
            f"{_span(absorption)} and {_span(emission)}"
        )
    zero_line_nm = _crossing(absorption, emission, low, high)
    _warn_if_inconsistent(absorption, emission, low, high)
    if complete_by_mccumber:
        absorption, emission = _completed(absorption, emission, low, high)
        low, high = absorption.wavelength_nm[0], absorption.wavelength_nm[-1]
    return Spectroscopy(
        name=name or Path(absorption_file).stem,
        absorption=absorption,
        emission=emission,
        range_nm=(float(low), float(high)),
        lifetime_s=lifetime_s,
        zero_line_nm=zero_line_nm,
    )


@dataclass(frozen=True, eq=False)
class CrossSectionTable:
    """A cross-section in m² at wavelengths in nm, linear between them."""

    wavelength_nm: Array
    cross_section_m2: Array

    def __call__(self, wavelength_nm: Array) -> Array:
        """Return the cross-section in m² at wavelengths in nm."""
        return np.interp(wavelength_nm, self.wavelength_nm, self.cross_section_m2)


def _table(
    wavelength: Array, cross_section: Array, source: str | os.PathLike[str]
) -> CrossSectionTable:
    if wavelength.max() < 1e-3:
        wavelength = wavelength * 1e9
    if wavelength.min() < 100 or wavelength.max() > 20000:
        raise ValueError(
            f"{source}: wavelengths from {wavelength.min():g} to {wavelength.max():g} are in "
            "neither nm nor m"
        )
    order = np.argsort(wavelength)
    wavelength, cross_section = wavelength[order], cross_section[order]
    if (np.diff(wavelength) <= 0).any():
        raise ValueError(f"{source}: a wavelength is repeated")
    if cross_section.min() < 0 or not 1e-27 <= cross_section.max() <= 1e-22:
        raise ValueError(
            f"{source}: cross-sections from {cross_section.min():g} to {cross_section.max():g} "
            "are not in m² (the maximum of ytterbium is between 1e-27 and 1e-22); 1 cm² is 1e-4 m²"
        )
    return CrossSectionTable(wavelength, cross_section)


def _read(path: Path, width: int) -> Array:
    rows: list[list[float]] = []
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: see byte {error.start}") from error
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text[0] in "#%;!":
            continue
        cells = _cells(text)
        if cells is None and not rows:
            continue  # a heading
        if cells is None or len(cells) != width:
            raise ValueError(f"{path}, line {number}: expected {width} numbers, got {quoted(text)}")
        rows.append(cells)
    if len(rows) < 2:
        raise ValueError(f"{path}: expected at least two lines of {width} numbers")
    return np.array(rows)


def _cells(text: str) -> list[float] | None:
    """Return the numbers of a line; a comma is decimal if spaces or semicolons separate."""
    words = [word.rstrip(",") for word in re.split(r"[;\s]+", text) if word.rstrip(",")]
    if len(words) == 1:
        words = text.split(",")
    else:
        words = [word.replace(",", ".") for word in words]
    if not all(_NUMBER.fullmatch(word.strip()) for word in words):
        return None
    return [float(word) for word in words]


def _crossing(
    absorption: CrossSectionTable, emission: CrossSectionTable, low: float, high: float
) -> float:
    """Return the wavelength near 976 nm where the cross-sections are equal; default 976 nm."""
    grid = np.linspace(max(low, 966.0), min(high, 986.0), 401)
    difference = emission(grid) - absorption(grid)
    crossings = np.flatnonzero(np.diff(np.sign(difference)))
    if grid[0] >= grid[-1] or not crossings.size:
        return 976.0
    return float(grid[crossings[np.argmin(np.abs(grid[crossings] - 976.0))]])


def _warn_if_inconsistent(
    absorption: CrossSectionTable, emission: CrossSectionTable, low: float, high: float
) -> None:
    from_nm, to_nm = max(low, 985.0), min(high, 1035.0)
    both = Spectroscopy("tables", absorption, emission, (low, high), lifetime_s=1e-3)
    grid = np.linspace(from_nm, to_nm, 101)
    if to_nm - from_nm < 20 or min(absorption(grid).min(), emission(grid).min()) <= 0:
        return  # the overlap is too small for a fit
    fit = both.mccumber_fit(from_nm, to_nm)
    coldest, hottest = _PLAUSIBLE_K
    if not (coldest <= fit.temperature_k <= hottest and fit.rms <= _PLAUSIBLE_RMS):
        warnings.warn(
            f"absorption and emission obey the McCumber relation at {fit.temperature_k:.0f} K with "
            f"a deviation of {fit.rms:.2f}; expected is {coldest:g} to {hottest:g} K and at most "
            f"{_PLAUSIBLE_RMS:g}. Check for swapped columns or tables of different glasses",
            stacklevel=3,
        )


def _completed(
    absorption: CrossSectionTable, emission: CrossSectionTable, low: float, high: float
) -> tuple[CrossSectionTable, CrossSectionTable]:
    both = Spectroscopy("tables", absorption, emission, (low, high), lifetime_s=1e-3)
    fit = both.mccumber_fit(max(low, 985.0), min(high, 1035.0))
    wavelength = np.union1d(absorption.wavelength_nm, emission.wavelength_nm)
    ratio = np.exp(
        SECOND_RADIATION_CONSTANT
        * 1e9
        / fit.temperature_k
        * (1 / fit.zero_line_nm - 1 / wavelength)
    )
    found_a = np.interp(wavelength, *_columns(absorption), left=0, right=0)
    found_e = np.interp(wavelength, *_columns(emission), left=0, right=0)
    return (
        CrossSectionTable(wavelength, np.where(found_a > 0, found_a, found_e / ratio)),
        CrossSectionTable(wavelength, np.where(found_e > 0, found_e, found_a * ratio)),
    )


def _columns(table: CrossSectionTable) -> tuple[Array, Array]:
    return table.wavelength_nm, table.cross_section_m2


def _span(table: CrossSectionTable) -> str:
    return f"{table.wavelength_nm[0]:g} to {table.wavelength_nm[-1]:g} nm"
