"""Readers, k-core, splits and batches of interactions."""

import numpy as np
import pytest
import torch
from lightning.pytorch import seed_everything

from lightning_plugins.datamodules import InteractionDataModule
from lightning_plugins.datamodules.interactions.batches import Windows
from lightning_plugins.datamodules.interactions.interaction_table import k_core
from lightning_plugins.datamodules.interactions.movielens import parsed_title
from lightning_plugins.datamodules.interactions.splits import leave_last_out, split_by_time

ROWS = [
    ("u", "a", 5, 3),
    ("u", "b", 4, 1),
    ("u", "c", 3, 2),
    ("v", "a", 4, 9),
    ("v", "c", 5, 7),
]
TITLES = {
    "a": ("Äpfel, The", "1999", ["Drama"]),
    "b": ("B", "2000", []),
    "c": ("C (x)", "2001", []),
}


def write_100k(folder):
    names = ["unknown", "Action", "Drama"]
    (folder / "u.genre").write_text("".join(f"{n}|{i}\n" for i, n in enumerate(names)) + "\n")
    lines = [
        f"{item}|{title} ({year})|01-Jan||url|{'|'.join(str(int(n in genres)) for n in names)}\n"
        for item, (title, year, genres) in TITLES.items()
    ]
    (folder / "u.item").write_text("".join(lines), encoding="latin-1")
    (folder / "u.data").write_text("".join("\t".join(map(str, row)) + "\n" for row in ROWS))
    return folder


def write_1m(folder):
    lines = [f"{i}::{t} ({y})::{'|'.join(g)}\n" for i, (t, y, g) in TITLES.items()]
    (folder / "movies.dat").write_text("".join(lines), encoding="latin-1")
    (folder / "ratings.dat").write_text("".join("::".join(map(str, row)) + "\n" for row in ROWS))
    return folder


def write_latest(folder):
    lines = [
        f'{item},"{title} ({year})",{"|".join(genres) or "(no genres listed)"}\n'
        for item, (title, year, genres) in TITLES.items()
    ]
    (folder / "movies.csv").write_text("movieId,title,genres\n" + "".join(lines), encoding="utf-8")
    rows = "".join(",".join(map(str, row)) + "\n" for row in ROWS)
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n" + rows)
    return folder


def write_atomic(folder):
    rows = "".join("\t".join(map(str, row)) + "\n" for row in ROWS)
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    (folder / "x.inter").write_text(header + rows)
    items = "".join(f"{i}\t{t}\t{y}\t{' '.join(g)}\n" for i, (t, y, g) in TITLES.items())
    header = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    (folder / "x.item").write_text(header + items, encoding="utf-8")
    return folder


def table_rows():
    for user, item, rating, time in ROWS:
        title, year, genres = TITLES[item]
        yield user, item, rating, time, title, year, "|".join(genres)


def write_csv(folder):
    lines = [",".join(f'"{value}"' for value in row) for row in table_rows()]
    header = "who,item,rating,timestamp,title,year,genres"
    (folder / "x.csv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return folder / "x.csv"


def write_parquet(folder):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    names = ("who", "item", "rating", "timestamp", "title", "year", "genres")
    columns = dict(zip(names, map(list, zip(*table_rows(), strict=True)), strict=True))
    parquet.write_table(pyarrow.table(columns), folder / "x.parquet")
    return folder / "x.parquet"


WRITERS = [write_100k, write_1m, write_latest, write_atomic, write_csv, write_parquet]


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_all_formats_are_read_to_the_same_items_and_sequences(write, tmp_path):
    path = write(tmp_path)
    columns = {"user": "who"} if path.is_file() else None
    data = InteractionDataModule(
        str(path), columns, min_rating=3, min_user_count=1, min_item_count=1
    )
    data.setup()
    assert [str(item) for item in data.catalogue] == [
        "",
        "Äpfel, The (1999)",
        "B (2000)",
        "C (x) (2001)",
    ]
    assert data.catalogue[1].genres == ("Drama",)
    assert data.catalogue.genre_indicators().tolist() == [[False], [True], [False], [False]]
    # In chronological order, u took b, c, a and v took c, a. Only u has enough items for questions.
    assert [items.tolist() for items in data.parts.train] == [[2], [3, 1]]
    (question,) = data.parts.test
    assert (question.user, question.history.tolist(), question.target) == (0, [2, 3], 1)


def test_low_ratings_and_repeated_interactions_are_removed(tmp_path):
    rows = ["u,a,5,1", "u,b,3,2", "u,c,5,3", "u,a,5,4", "u,d,5,5"]
    (tmp_path / "x.csv").write_text("\n".join(["user,item,rating,timestamp", *rows]))
    data = InteractionDataModule(str(tmp_path / "x.csv"), min_user_count=1, min_item_count=1)
    data.setup()
    (question,) = data.parts.test
    names = [str(data.catalogue[number]) for number in (*question.history, question.target)]
    assert names == ["a", "c", "d"]


def test_movielens_titles_are_split_into_title_and_year():
    assert parsed_title("City, The (1998)") == ("City, The", 1998)
    assert parsed_title("Brazil (Director's cut) (1985) ") == ("Brazil (Director's cut)", 1985)
    assert parsed_title("unknown") == ("unknown", None)


def test_the_k_core_is_a_fixed_point_and_contains_the_most_popular_item():
    generator = np.random.default_rng(0)
    users, items = generator.integers(0, 60, 400), (60 * generator.random(400) ** 3).astype(int)
    kept = k_core(users, items, 4, 5)
    assert 0 < kept.sum() < 400
    assert np.bincount(items).argmax() in items[kept]
    for codes, minimum in ((users, 4), (items, 5)):
        counts = np.unique(codes[kept], return_counts=True)[1]
        assert counts.min() >= minimum
    # Removing one user or item at a time, in another order, leads to the same subset.
    alive = np.ones(400, dtype=bool)
    while True:
        bad = [
            (codes, code)
            for codes, minimum in ((items, 5), (users, 4))
            for code, count in zip(*np.unique(codes[alive], return_counts=True), strict=True)
            if count < minimum
        ]
        if not bad:
            break
        codes, code = bad[-1]
        alive &= codes != code
    assert (alive == kept).all()


def test_time_split_has_no_training_item_later_than_a_target():
    generator = np.random.default_rng(1)
    sequences = [generator.permutation(50)[:20] + 1 for _ in range(30)]
    times = [np.sort(generator.random(20)) for _ in range(30)]
    parts = split_by_time(sequences, times)
    latest = max(
        times[user][len(items) - 1] for user, items in enumerate(parts.train) if len(items)
    )
    assert parts.validation
    assert parts.test
    for questions in (parts.validation, parts.test):
        for question in questions:
            assert times[question.user][len(question.history)] > latest
            assert question.target == sequences[question.user][len(question.history)]
            assert question.target not in question.history


def test_users_with_fewer_than_three_items_have_no_question():
    parts = leave_last_out([np.array([1, 2]), np.array([3, 4, 5])])
    assert [items.tolist() for items in parts.train] == [[1, 2], [3]]
    assert [(q.user, q.target) for q in (*parts.validation, *parts.test)] == [(1, 4), (1, 5)]


@pytest.mark.parametrize("length", [1, 2, 5, 6, 7, 11, 12])
def test_each_item_except_the_first_is_a_target_of_one_window(length):
    windows = Windows([np.arange(1, length + 1)], max_length=5)
    targets = [item for window in windows for item in window["items"][1:].tolist() if item]
    assert sorted(targets) == list(range(2, length + 1))
    assert all(len(window["items"]) == 6 for window in windows)


def small(tmp_path, **changes):
    generator = np.random.default_rng(0)
    rows = [
        f"{user},{item},{time}"
        for user in range(20)
        for time, item in enumerate(generator.permutation(30)[:12])
    ]
    (tmp_path / "x.csv").write_text("\n".join(["user,item,timestamp", *rows]))
    settings = {"min_user_count": 1, "min_item_count": 1, "max_length": 4, "min_target_count": 2}
    data = InteractionDataModule(str(tmp_path / "x.csv"), **(settings | changes))
    data.setup()
    return data


def test_batches_contain_the_latest_items_and_all_seen_items(tmp_path):
    data = small(tmp_path, evaluation_batch_size=7)
    batches = list(data.test_dataloader())
    assert sum(len(batch["user"]) for batch in batches) == 20
    for batch in batches:
        assert batch["history"].shape[1] == 4
        assert batch["seen"].shape[1] == 11
        assert torch.equal(batch["history"], batch["seen"][:, -4:])
        assert not (batch["seen"] == batch["target"][:, None]).any()


def test_path_targets_are_common_unseen_and_reproducible(tmp_path):
    seed_everything(3)
    state = torch.get_rng_state(), np.random.get_state()[1].tolist()
    data = small(tmp_path, predict_users=9)
    questions = data.path_questions()
    assert len(questions) == 9
    for question in questions:
        assert data.item_counts[question.target] >= 2
        assert question.target not in question.history
    again = small(tmp_path, predict_users=9).path_questions()
    other = small(tmp_path, predict_users=9, seed=1).path_questions()
    assert [q.target for q in again] == [q.target for q in questions]
    assert [q.target for q in other] != [q.target for q in questions]
    assert torch.equal(torch.get_rng_state(), state[0])
    assert np.random.get_state()[1].tolist() == state[1]


def test_an_error_is_raised_if_no_user_has_a_common_unseen_item(tmp_path):
    with pytest.raises(ValueError, match="min_target_count=99: no user has an unseen item"):
        small(tmp_path, min_target_count=99).path_questions()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "random"}, "split='random': expected 'leave_last_out', 'time' or 'given'"),
        ({"max_length": 0}, "max_length=0: expected at least 1"),
        ({"predict_users": 0}, "predict_users=0: expected at least 1"),
        ({"seed": -1}, "seed=-1: expected at least 0"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        InteractionDataModule(**arguments)


def test_invalid_sources_raise_errors_with_the_reason(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"source='nowhere': no such file or folder"):
        InteractionDataModule("nowhere").setup()
    with pytest.raises(ValueError, match=r"expected ratings.dat"):
        InteractionDataModule(str(tmp_path)).setup()
    (tmp_path / "x.csv").write_text("user,film,timestamp\nu,a,1\n")
    with pytest.raises(ValueError, match=r"named as the item: expected columns={'item': 'film'}"):
        InteractionDataModule(str(tmp_path / "x.csv")).setup()
    with pytest.raises(ValueError, match=r"columns has 'films': expected some of"):
        InteractionDataModule(str(tmp_path / "x.csv"), {"films": "film"}).setup()
    with pytest.raises(ValueError, match=r"no interaction is left with min_rating=4.0"):
        InteractionDataModule(str(tmp_path / "x.csv"), {"item": "film"}).setup()
    (tmp_path / "a.inter").write_text("user_id:token\titem_id:token\nu\n")
    with pytest.raises(ValueError, match=r"a.inter: row 1 has 1 values in 2 columns"):
        InteractionDataModule(str(tmp_path)).setup()
    (tmp_path / "b.inter").write_text("")
    with pytest.raises(ValueError, match=r"several data sets"):
        InteractionDataModule(str(tmp_path)).setup()


def test_movielens_100k_has_the_known_size():
    data = InteractionDataModule()
    try:
        data.setup()
    except FileNotFoundError as missing:
        pytest.skip(str(missing))
    interactions = sum(map(len, data.parts.train)) + 2 * len(data.parts.test)
    assert (len(data.parts.train), data.num_items, interactions) == (938, 1008, 54_413)
    assert "Toy Story (1995)" in [str(item) for item in data.catalogue]
