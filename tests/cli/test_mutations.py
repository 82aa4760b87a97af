"""A recipe with one error trains, or the error is one line that names key, file and line."""

import random
import re
import string

import pytest
import yaml
from lightning.pytorch import Trainer

from lightning_plugins.__main__ import main
from lightning_plugins.recipes import list_recipes, load_recipe

RECIPES = [recipe.name for recipe in list_recipes() if not recipe.is_overlay]
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
    """Return exit code and error lines of ``fit``; the code is 0 if training would begin."""

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
        lines = capsys.readouterr().err.splitlines()
        return code, [line for line in lines if line.startswith("lightning-plugins: ")]

    return run


def places(node, way=()):
    """Return the way to every nested value."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in list(items):
        yield (*way, key)
        if isinstance(value, dict | list):
            yield from places(value, (*way, key))


def at(node, way):
    for key in way:
        node = node[key]
    return node


def misspelt(word, chance):
    """Drop, add, replace or exchange one letter."""
    index = chance.randrange(len(word))
    letter = chance.choice(string.ascii_lowercase)
    wrong = chance.choice(
        (
            word[:index] + word[index + 1 :],
            word[:index] + letter + word[index:],
            word[:index] + letter + word[index + 1 :],
            word[:index] + word[index : index + 2][::-1] + word[index + 2 :],
        )
    )
    return wrong if wrong != word and wrong.isidentifier() else f"{word}x"


def check(code, lines, names):
    assert code in (0, 2)
    if code == 0:
        return
    (line,) = lines
    assert len(line) <= 300 + len("lightning-plugins: ")
    assert re.search(r"mutated\.yaml:\d+: ", line), line
    assert any(str(name) in line for name in names), (line, names)


def mutate_a_value(told, seed):
    chance = random.Random(seed)
    recipe = load_recipe(chance.choice(RECIPES))
    *way, last = chance.choice(list(places(recipe)))
    what = chance.choice(("replace", "replace", "replace", "drop", "add"))
    node = at(recipe, way)
    names = [part for part in (*way, last) if isinstance(part, str)][-2:]
    if what == "replace":
        node[last] = chance.choice(JUNK)
        if isinstance(node[last], dict):
            names += [*node[last]]
    elif what == "drop":
        del node[last]
        names += [part for part in way if isinstance(part, str)] + ["class_path"]
    else:
        wrong = chance.choice(("model", "data", "trainer", "optimizer", "nope"))
        recipe[wrong] = chance.choice(JUNK)
        names = [wrong]
    check(*told(yaml.safe_dump(recipe, sort_keys=False)), names)


def misspell_a_key(told, seed):
    """Return whether the right key is suggested."""
    chance = random.Random(seed)
    recipe = load_recipe(chance.choice(RECIPES))
    ways = [way for way in places(recipe) if isinstance(way[-1], str)]
    *way, last = chance.choice(ways)
    node = at(recipe, way)
    wrong = misspelt(last, chance)
    if wrong in node:
        return True
    items = [(wrong if key == last else key, value) for key, value in node.items()]
    node.clear()
    node.update(items)
    code, lines = told(yaml.safe_dump(recipe, sort_keys=False))
    if code == 0:  # a free mapping, such as the options of a network
        return True
    check(code, lines, [wrong])
    return bool(re.search(rf"did you mean (\w+ or )?{re.escape(last)}\b", lines[0]))


def outcomes(mutate, told, seeds):
    """Return what ``mutate`` returns for each seed, once all seeds were tried without a failure."""
    found, failures = [], []
    for seed in seeds:
        try:
            found.append(mutate(told, seed))
        except Exception as failure:  # a traceback of the command, too
            failures.append(f"seed {seed}: {type(failure).__name__}: {failure}"[:600])
    assert not failures, f"{len(failures)} failures\n" + "\n".join(failures[:20])
    return found


def test_mutated_values_train_or_are_reported(told):
    outcomes(mutate_a_value, told, range(15))


def test_misspelt_keys_are_reported_with_the_right_name(told):
    right = outcomes(misspell_a_key, told, range(20))
    assert sum(right) >= 0.95 * len(right)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_three_hundred_mutated_values_train_or_are_reported(told):
    outcomes(mutate_a_value, told, range(1000, 1300))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_hundred_misspelt_keys_are_reported_with_the_right_name(told):
    right = outcomes(misspell_a_key, told, range(1000, 1200))
    assert sum(right) >= 0.95 * len(right)


@pytest.mark.parametrize("seed", range(8))
def test_a_corrupted_file_is_one_line(told, seed):
    chance = random.Random(seed)
    text = list(yaml.safe_dump(load_recipe(chance.choice(RECIPES))))
    for _ in range(chance.randint(1, 8)):
        text[chance.randrange(len(text))] = chance.choice("\t{}[]:'\"&*!%@\0é\n ")
    code, lines = told("".join(text))
    assert code in (0, 2)
    assert code == 0 or (len(lines) == 1 and "mutated.yaml" in lines[0])
