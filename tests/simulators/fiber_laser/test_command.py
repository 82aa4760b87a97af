"""The command ``fiber-laser``, its files, and its imports."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lightning_plugins.simulators.fiber_laser import (
    design_from,
    load_design,
    load_result,
    save_result,
)
from lightning_plugins.simulators.fiber_laser.command import main
from lightning_plugins.simulators.fiber_laser.study_files import full_path

SMALL = """
glass: {name: liekki}
ase: {from: 1000 nm, to: 1060 nm, bins: 6}
seed: {signal: {wavelength: 1018 nm, power: 30 mW}}
stages:
  - name: only
    fiber: {length: 30 cm, core_diameter: 6 um, core_na: 0.12, ytterbium: 5e25 1/m^3}
    pumps: [{wavelength: 976 nm, power: 0.6 W, path: core}]
"""


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def test_run_prints_the_figures_saves_the_profiles_and_draws(small, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    assert main(["run", str(small), "--output", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "signal_out_w" in printed
    assert (tmp_path / "out" / "only.png").read_bytes().startswith(b"\x89PNG")
    head, arrays = load_result(tmp_path / "out" / "result.npz")
    result = load_design(small).solve()
    assert head["units"]["forward_w"] == "W"
    assert head["versions"]["numpy"] == np.__version__
    assert head["figures"]["only"]["signal_out_w"] == result.chain.output.signal_out_w
    assert arrays["only/forward_w"] == pytest.approx(result.chain.output.forward_w, rel=1e-12)
    assert not list((tmp_path / "out").glob("*.part"))


def test_sweep_writes_a_table_and_draws_it(small, tmp_path):
    pytest.importorskip("matplotlib")
    arguments = ["sweep", str(small), "only.fiber.length", "0.1m", "40 cm", "4"]
    assert main([*arguments, "--output", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "sweep.png").read_bytes().startswith(b"\x89PNG")
    rows = (tmp_path / "out" / "sweep.csv").read_text().splitlines()
    assert rows[0].startswith("chain.stages[0].fiber.length_m,only_out_w,pump_launched_w")
    assert [float(row.split(",")[0]) for row in rows[1:]] == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_optimize_improves_the_given_design(small, capsys):
    before = load_design(small).solve().chain.output.signal_out_w
    assert main(["optimize", str(small), "--vary", "only.fiber.length", "0.1m", "1m"]) == 0
    printed = capsys.readouterr().out
    after = float(next(x for x in printed.splitlines() if "signal_out_w" in x).split()[1])
    assert after > before


def test_designs_are_listed_and_printed(capsys):
    assert main(["designs"]) == 0
    assert "reference_1018" in capsys.readouterr().out
    assert main(["designs", "reference_1018"]) == 0
    assert "nothing here is data of that paper" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "missing"], "no design 'missing'"),
        (
            ["sweep", "SMALL", "only.fiber.weight", "1m", "2m", "3"],
            "'weight' is not one of length_m",
        ),
        (["sweep", "SMALL", "only.fiber.length", "1W", "2m", "3"], "expected a unit of length"),
        (["sweep", "SMALL", "only.fiber.length", "1m", "2m", "1"], "points = 1"),
        (["sweep", "SMALL", "only.name", "1m", "2m", "3"], "is not a number"),
        (["optimize", "SMALL", "--vary", "only.fiber.length", "2m", "1m"], "must be below"),
        (["reproduce", "SMALL"], "seed.laser is missing"),
    ],
)
def test_an_input_error_is_one_line_and_exit_code_2(
    small, arguments, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main([str(small) if word == "SMALL" else word for word in arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_reproduce_prints_each_figure_with_its_kind(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    assert main(["reproduce", "--output", str(tmp_path)]) == 0
    for name in ("tuning.png", "power.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    for text in ("> 120 W", "77.3 %", "> 60 dB", "> 1.5 nm", "3.25 kHz", "10.3 kHz", "< 1.3"):
        assert text in printed
    for kind in ("predicted", "calibrated", "assumed"):
        assert kind in printed
    assert "geometry of the published laser is not known" in " ".join(printed.split())


def test_paths_may_leave_out_units_and_name_stages(small):
    design = load_design(small)
    assert full_path(design, "only.fiber.length") == "chain.stages[0].fiber.length_m"
    assert full_path(design, "only.pumps[0].power_w") == "chain.stages[0].pumps[0].power_w"


@pytest.mark.parametrize("kind", ["external", "virtual", "objects"])
def test_an_hdf5_file_that_reads_other_files_is_refused(kind, tmp_path):
    h5py = pytest.importorskip("h5py")
    (tmp_path / "private").write_bytes(b"secret!!")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.attrs["head"] = "{}"
        if kind == "external":
            place = [(str(tmp_path / "private"), 0, 8)]
            file.create_dataset("a", (8,), "u1", external=place)
        elif kind == "virtual":
            layout = h5py.VirtualLayout((8,), "u1")
            layout[:] = h5py.VirtualSource(tmp_path / "private", "a", (8,))
            file.create_virtual_dataset("a", layout)
        else:
            file.create_dataset("a", data=["text"])
    with pytest.raises(ValueError, match="'a' is not an array inside the file"):
        load_result(tmp_path / "x.h5")


def test_hdf5_holds_the_same_data_or_names_h5py(tmp_path):
    import yaml

    chain = design_from(yaml.safe_load(SMALL)).solve().chain
    try:
        import h5py  # noqa: F401
    except ImportError:
        with pytest.raises(ImportError, match="pip install h5py"):
            save_result(tmp_path / "x.h5", chain)
    else:
        save_result(tmp_path / "x.h5", chain)
        head, arrays = load_result(tmp_path / "x.h5")
        assert head["units"]["edges_m"] == "m"
        assert arrays["only/forward_w"] == pytest.approx(chain.output.forward_w)
    with pytest.raises(ValueError, match=r"a name ending in \.npz"):
        save_result(tmp_path / "x.pickle", chain)


def test_files_of_another_kind_are_refused(tmp_path):
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    with pytest.raises(ValueError, match="is not a fiber-laser result"):
        load_result(tmp_path / "other.npz")
    np.savez(tmp_path / "objects.npz", head=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        load_result(tmp_path / "objects.npz")


def test_the_simulator_loads_neither_torch_nor_lightning_nor_matplotlib():
    program = (
        "import sys, json; import lightning_plugins.simulators.fiber_laser.command;"
        "names = ('torch', 'lightning', 'pytorch_lightning', 'matplotlib', 'numba', 'h5py');"
        "print(json.dumps([n for n in names if n in sys.modules]))"
    )
    root = Path(__file__).parents[3]
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=root
    )
    assert json.loads(run.stdout) == []
