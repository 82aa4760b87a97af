"""Designs in YAML: each quantity has a unit, each error gives its place."""

import copy

import pytest
import yaml

from lightning_plugins.simulators.fiber_laser import design_from, load_design, packaged_designs
from lightning_plugins.simulators.fiber_laser.design_file import parse_yaml, read_design_text
from lightning_plugins.simulators.fiber_laser.parameter_paths import with_value
from lightning_plugins.simulators.fiber_laser.quantities import parse_quantity, split_unit
from lightning_plugins.simulators.fiber_laser.reproduction import reproduce

SMALL = yaml.safe_load("""
glass: {name: liekki, temperature: 40 degC}
ase: {from: 1000 nm, to: 1.06 um, bins: 6}
seed: {signal: {wavelength: 1018 nm, power: 30 mW}}
stages:
  - name: only
    fiber: {length: 30 cm, core_diameter: 6 um, core_na: 0.12, ytterbium: 5e19 1/cm^3}
    pumps: [{wavelength: 976 nm, power: 0.6 W, path: core}]
""")


@pytest.mark.parametrize(
    ("text", "suffix", "value"),
    [
        ("1018 nm", "_nm", 1018.0),
        ("1.018um", "_nm", 1018.0),
        ("8 mm", "_m", 0.008),
        ("30 mW", "_w", 0.030),
        ("4.3429448190325175 dB/m", "_per_m", 1.0),
        ("10 dB/km", "_db_per_m", 0.01),
        ("8e19 1/cm^3", "_per_m3", 8e25),
        ("8e25 m^-3", "_per_m3", 8e25),
        ("20 degC", "_k", 293.15),
        ("300 K", "_c", 26.85),
        ("12 ppm/K", "_per_k", 12e-6),
        ("850 µs", "_s", 850e-6),
        ("3.25 kHz", "_hz", 3250.0),
    ],
)
def test_quantities_are_converted_to_the_unit_of_the_name(text, suffix, value):
    assert parse_quantity("x", text, suffix) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("text", ["5", "5 W", "nm", "5 nm nm", "", "1e9999x m"])
def test_a_quantity_without_unit_or_of_another_dimension_raises(text):
    with pytest.raises(ValueError, match=r"x = .*: expected"):
        parse_quantity("x", text, "_m")


def test_the_unit_is_split_from_the_name():
    assert split_unit("length_m") == ("length", "_m")
    assert split_unit("ytterbium_per_m3") == ("ytterbium", "_per_m3")
    assert split_unit("core_na") == ("core_na", None)


def test_a_design_is_built_as_written():
    design = design_from(SMALL)
    stage = design.chain.stages[0]
    assert stage.fiber.length_m == pytest.approx(0.3)
    assert stage.fiber.ytterbium_per_m3 == pytest.approx(5e25)
    assert stage.pumps[0].path == "core"
    assert design.chain.spectroscopy.temperature_k == pytest.approx(313.15)
    assert design.chain.ase.to_nm == pytest.approx(1060)
    assert design.solve().chain.output.signal_out_w > 0.030


def test_fibers_can_be_given_by_their_cladding_absorption():
    content = copy.deepcopy(SMALL)
    fiber = content["stages"][0]["fiber"]
    del fiber["ytterbium"]
    fiber |= {"cladding_diameter": "125 um", "cladding_absorption": "5 dB/m"}
    built = design_from(content).chain.stages[0].fiber
    glass = design_from(content).chain.spectroscopy
    per_m = built.cladding_overlap() * built.ytterbium_per_m3 * float(glass.absorption_m2(976))
    assert per_m == pytest.approx(5 / 4.342944819)


def test_a_cross_section_table_can_be_the_glass(tmp_path):
    from lightning_plugins.simulators.fiber_laser import ytterbium

    model = ytterbium()
    rows = [f"{nm} {model.absorption_m2(nm)} {model.emission_m2(nm)}" for nm in range(900, 1100)]
    (tmp_path / "mine.txt").write_text("\n".join(rows))
    content = copy.deepcopy(SMALL)
    content["glass"] = {"absorption_file": str(tmp_path / "mine.txt"), "lifetime": "0.9 ms"}
    glass = design_from(content).chain.spectroscopy
    assert (glass.name, glass.lifetime_s) == ("mine", 0.9e-3)


def changed(path, value):
    content = copy.deepcopy(SMALL)
    part = content
    for key in path[:-1]:
        part = part[key]
    if value is None:
        del part[path[-1]]
    else:
        part[path[-1]] = value
    return content


FIBER = ("stages", 0, "fiber")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed((*FIBER, "length"), "3 W"), r"stages\[0\]\.fiber\.length = '3 W': .* of length"),
        (changed((*FIBER, "length"), 3), r"fiber\.length = 3: expected a unit of length .* none"),
        (changed((*FIBER, "length"), "0 m"), r"length_m = 0 m: allowed is more than 0 m"),
        (changed((*FIBER, "lenght"), "1 m"), r"fiber\.lenght is unknown: .* did you mean length"),
        (changed((*FIBER, "core_na"), None), r"fiber\.core_na is missing"),
        (changed((*FIBER, "core_na"), "wide"), r"core_na = 'wide': expected a number"),
        (changed(("stages", 0, "pumps"), []), r"stages\[0\]\.pumps is missing"),
        (
            changed(("stages", 0, "pumps", 0, "power"), "-1 W"),
            r"pumps\[0\]: power_w = -1 W: allowed is at least 0 W",
        ),
        (
            changed(("stages", 0, "pumps", 0, "path"), "air"),
            "path = 'air': allowed is 'cladding' or 'core'",
        ),
        (changed(("stages",), None), "stages is missing"),
        (changed(("seed",), {}), "give either signal or laser"),
        (changed(("glass", "name"), "ice"), "glass = 'ice': allowed is germanosilicate"),
        (changed(("ase", "bins"), 2.5), "bins = 2.5: allowed is an integer"),
        (changed(("seed",), {"signal": 5}), "seed.signal = 5: expected a mapping"),
    ],
)
def test_errors_give_the_place_in_the_file(content, message):
    with pytest.raises(ValueError, match=message):
        design_from(content)


def test_a_seed_below_threshold_raises_with_both_excitations():
    content = yaml.safe_load(read_design_text("reference_1018"))
    content["seed"]["laser"]["ytterbium"] = "2e25 1/m^3"
    with pytest.raises(ValueError, match=r"below threshold: it needs a mean excitation of"):
        design_from(content)


def test_a_wavelength_outside_the_glass_raises_when_solved():
    design = design_from(changed(("seed", "signal", "wavelength"), "1550 nm"))
    with pytest.raises(ValueError, match=r"wavelength_nm = 1550 nm: .* covers 895 to 1130 nm"):
        design.solve()


def test_missing_files_and_invalid_yaml_raise(tmp_path):
    with pytest.raises(ValueError, match="no design 'nothing': neither a file nor one of"):
        load_design("nothing")
    (tmp_path / "broken.yaml").write_text("a: [1,")
    with pytest.raises(ValueError, match="is not valid YAML"):
        load_design(tmp_path / "broken.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(ValueError, match="expected a mapping"):
        load_design(tmp_path / "list.yaml")


def test_numbers_with_exponents_are_numbers():
    content = parse_yaml("{a: 65e-3, b: 1E5, c: -2.5e+3, d: 8e25 1/m^3, e: 1.5, f: e5}")
    assert content == {
        "a": 0.065, "b": 1e5, "c": -2500.0, "d": "8e25 1/m^3", "e": 1.5, "f": "e5",
    }  # fmt: skip
    text = read_design_text("reference_1018").replace("core_na: 0.065", "core_na: 65e-3")
    assert design_from(parse_yaml(text)).chain.stages[-1].fiber.core_na == 0.065


def test_a_repeated_key_raises(tmp_path):
    (tmp_path / "twice.yaml").write_text("seed: {}\nstages: []\nseed: {}\n")
    with pytest.raises(ValueError, match="the key 'seed' is repeated"):
        load_design(tmp_path / "twice.yaml")


@pytest.mark.parametrize("place", ["seed", "signal"])
def test_the_linewidth_of_the_signal_is_set_and_carried_through_the_chain(place):
    content = copy.deepcopy(SMALL)
    part = content["seed"] if place == "seed" else content["seed"]["signal"]
    part["linewidth"] = "10 GHz"
    result = design_from(content).solve()
    assert result.chain.output.amplifier.signals[0].linewidth_hz == 1e10
    narrow = design_from(SMALL).solve().summary()["brillouin_threshold_low_w"]
    broad = result.summary()["brillouin_threshold_low_w"]
    assert broad / narrow == pytest.approx(1 + 1e10 / 50e6)
    part["linewidth"] = "-1 Hz"
    with pytest.raises(ValueError, match="linewidth_hz = -1 Hz"):
        design_from(content)
    content["seed"]["linewidth"] = content["seed"]["signal"]["linewidth"] = "1 kHz"
    with pytest.raises(ValueError, match=r"give either linewidth or signal\.linewidth"):
        design_from(content)


OSCILLATOR = """
ase: {from: 1050 nm, to: 1080 nm, bins: 10}
stages:
  - name: oscillator
    fiber: {length: 5 m, core_diameter: 10 um, core_na: 80e-3, cladding_diameter: 125 um,
            ytterbium: 5e25 1/m^3}
    pumps: [{wavelength: 976 nm, power: 10 W}]
    reflectors:
      - {end: start, reflectivity: 0.99, from: 1063.4 nm, to: 1064.6 nm}
      - {end: end, reflectivity: 0.1, from: 1063.4 nm, to: 1064.6 nm}
  - name: booster
    fiber: {length: 5 m, core_diameter: 20 um, core_na: 0.08, cladding_diameter: 250 um,
            ytterbium: 8e25 1/m^3}
    pumps: [{wavelength: 976 nm, power: 50 W}]
"""


def test_an_oscillator_in_yaml_seeds_the_next_stage():
    design = design_from(parse_yaml(OSCILLATOR))
    result = design.solve()
    oscillator, booster = result.chain.stages
    signal = booster.amplifier.signals[0]
    assert 1063.4 < signal.wavelength_nm < 1064.6
    assert signal.power_w == pytest.approx(oscillator.laser_out_w(), rel=1e-3)
    entered = signal.power_w + booster.amplifier.ase_forward_in_w.sum()
    assert entered == pytest.approx(oscillator.ase_out_w("forward").sum(), rel=1e-9)
    figures = result.summary()
    assert figures["oscillator_out_w"] == oscillator.output_w
    assert 40 < figures["booster_out_w"] < 60
    assert not [text for text in result.warnings if "Brillouin" in text], "the line is broad"


def test_an_oscillator_alone_has_its_figures_and_below_threshold_a_warning():
    content = parse_yaml(OSCILLATOR)
    del content["stages"][1]
    figures = design_from(content).solve().summary()
    assert figures["oscillator_out_w"] == figures["laser_forward_w"] > 7
    assert figures["laser_wavelength_nm"] == pytest.approx(1064, abs=0.6)
    content["stages"][0]["pumps"][0]["power"] = "20 mW"
    result = design_from(content).solve()
    assert "oscillator: below threshold" in result.warnings[0]
    assert result.summary()["oscillator_out_w"] == 0


def test_a_bad_reflector_gives_its_place():
    content = parse_yaml(OSCILLATOR)
    content["stages"][0]["reflectors"][0]["reflectivity"] = 1.5
    with pytest.raises(ValueError, match=r"stages\[0\]\.reflectors\[0\]: reflectivity = 1\.5"):
        design_from(content)
    with pytest.raises(ValueError, match="seed is missing; only an oscillator"):
        design_from({"stages": SMALL["stages"]})


def test_every_packaged_design_loads():
    assert "reference_1018" in packaged_designs()
    for name in packaged_designs():
        assert load_design(name).chain.stages


def test_a_changed_seed_below_threshold_raises_when_solved():
    design = load_design("reference_1018")
    weak = with_value(design, "seed_laser.pump_power_w", 5e-4)
    with pytest.raises(ValueError, match=r"seed\.laser is below threshold: it needs"):
        weak.solve()


def test_reproduction_covers_single_mode_cores_and_short_observations():
    text = read_design_text("reference_1018")
    content = yaml.safe_load(text)
    content["stages"][-1]["fiber"]["core_diameter"] = "11 um"
    content["surroundings"]["observation"] = "10 us"
    rows = {row.figure: row for row in reproduce(design_from(content))}
    assert rows["beam quality M²"].ours == "the core guides a single mode"
    assert rows["seed linewidth"].ours.startswith("3.25 kHz")
