"""A recipe with a random error trains, or the error is reported in one line with exit code 2."""

import random

import pytest
import yaml
from lightning.pytorch import Trainer

from lightning_plugins.__main__ import main
from lightning_plugins.recipes import load_recipe

RECIPES = ("late_sam/digits", "decentralized/digits16", "moe/circle", "induction_heads/mixture")
JUNK = (
    None,
    True,
    -1,
    0,
    3,
    float("nan"),
    float("inf"),
    1e-9,
    "",
    "nope",
    "1e400",
    "../../etc",
    "a.b.C",
    "é\u2028",
    [],
    [1, [2, {}]],
    {},
    {"class_path": "os.system", "init_args": {"command": "true"}},
    {"class_path": 3},
    {"nope": 1},
)


class Began(BaseException):
    """The mutated recipe is valid: training would begin."""


@pytest.fixture
def told(tmp_path, monkeypatch, capsys):
    """Return exit code and output lines of ``fit``; the code is 0 if training would begin."""

    def begin(*_, **__):
        raise Began

    monkeypatch.setattr(Trainer, "fit", begin)
    monkeypatch.chdir(tmp_path)

    def run(text):
        (tmp_path / "mutated.yaml").write_text(text, "utf-8")
        try:
            code = main(["fit", "--config", "mutated.yaml"])
        except Began:
            code = 0
        except SystemExit as stopped:
            code = stopped.code
        return code, capsys.readouterr().err

    return run


def places(node, path=()):
    """Return the path of every nested value."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in list(items):
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def mutated(recipe, chance):
    """Replace, drop or move a value, or misspell a key."""
    *way, last = chance.choice(list(places(recipe)))
    node = recipe
    for key in way:
        node = node[key]
    what = chance.choice(("replace", "replace", "drop", "misspell", "add"))
    if what == "replace":
        node[last] = chance.choice(JUNK)
    elif what == "drop":
        del node[last]
    elif what == "misspell" and isinstance(node, dict):
        node[f"{last}{chance.choice('sx_')}"] = node.pop(last)
    else:
        recipe[chance.choice(("model", "data", "trainer", "optimizer", "nope"))] = chance.choice(
            JUNK
        )
    return recipe


def check(told, text):
    code, printed = told(text)
    if code != 0:
        lines = [one for one in printed.splitlines() if one.startswith("lightning-plugins: ")]
        assert code == 2, printed
        assert "Traceback" not in printed
        assert len(lines) == 1, printed


@pytest.mark.parametrize("seed", range(16))
def test_one_invalid_value(told, seed):
    chance = random.Random(seed)
    check(told, yaml.safe_dump(mutated(load_recipe(chance.choice(RECIPES)), chance)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(16, 300))
def test_several_invalid_values(told, seed):
    chance = random.Random(seed)
    recipe = load_recipe(chance.choice(RECIPES))
    for _ in range(chance.randint(1, 3)):
        recipe = mutated(recipe, chance)
    check(told, yaml.safe_dump(recipe))


@pytest.mark.parametrize("seed", range(8))
def test_a_corrupted_file(told, seed):
    chance = random.Random(seed)
    text = list(yaml.safe_dump(load_recipe(chance.choice(RECIPES))))
    for _ in range(chance.randint(1, 8)):
        text[chance.randrange(len(text))] = chance.choice("\t{}[]:'\"&*!%@\0é\n ")
    check(told, "".join(text))
