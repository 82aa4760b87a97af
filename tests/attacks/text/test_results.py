"""An interrupted attack continues where it stopped."""

import pytest

from lightning_plugins.attacks.text import DeepWordBug, attack_texts

TEXTS = ["moreover a river", "delve moreover tapestry", "a stone", "tapestry moreover"]
LABELS = [1, 1, 0, 1]


class KilledError(Exception):
    pass


def dies_after(detector, calls):
    left = iter(range(calls))

    def victim(texts):
        if next(left, None) is None:
            raise KilledError
        return detector(texts)

    return victim


def test_only_missing_results_are_computed_and_all_are_the_same(tmp_path, detector):
    path = tmp_path / "deep" / "results.jsonl"
    whole = attack_texts(DeepWordBug(), detector, TEXTS, LABELS)
    with pytest.raises(KilledError):
        attack_texts(DeepWordBug(), dies_after(detector, 6), TEXTS, LABELS, at_once=1, path=path)
    with path.open("a") as file:
        file.write('{"place": 3, "res')  # the last line was cut off
    done = len(path.read_text().splitlines()) - 2
    assert 0 < done < len(TEXTS)
    asked = []

    def victim(texts):
        asked.extend(texts)
        return detector(texts)

    assert attack_texts(DeepWordBug(), victim, TEXTS, LABELS, path=path) == whole
    assert not set(asked) & set(TEXTS[:done])
    assert attack_texts(DeepWordBug(), None, TEXTS, LABELS, path=path) == whole


@pytest.mark.parametrize("other", [{"seed": 1}, {"threshold": 0.4}, {"labels": [1, 1, 1, 1]}])
def test_a_file_of_another_run_is_refused(tmp_path, detector, other):
    path = tmp_path / "results.jsonl"
    attack_texts(DeepWordBug(), detector, TEXTS, LABELS, path=path)
    arguments = {"labels": LABELS, "path": path, **other}
    with pytest.raises(ValueError, match="another run"):
        attack_texts(DeepWordBug(), detector, TEXTS, **arguments)
    with pytest.raises(ValueError, match="another run"):
        attack_texts(DeepWordBug(max_queries=9), detector, TEXTS, LABELS, path=path)


def test_results_of_another_victim_are_refused(tmp_path, detector):
    path = tmp_path / "results.jsonl"
    mine = {"path": path, "victim_name": "last.ckpt"}
    first = attack_texts(DeepWordBug(), detector, TEXTS, LABELS, **mine)
    assert attack_texts(DeepWordBug(), None, TEXTS, LABELS, **mine) == first
    for other in ({"path": path, "victim_name": "best.ckpt"}, {"path": path}):
        with pytest.raises(ValueError, match="another run"):
            attack_texts(DeepWordBug(), detector, TEXTS, LABELS, **other)
