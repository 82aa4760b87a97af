"""Files of other people: column order, dates, splits, items beside them, ties, pairs."""

import csv
import json
import logging
import random
import re
import warnings

import numpy as np
import pandas
import pytest

from lightning_plugins.datamodules import InteractionDataModule
from lightning_plugins.datamodules.interactions.splits import split_as_given

OPEN = {"min_rating": 0, "min_user_count": 1, "min_item_count": 1, "min_target_count": 1}


def rows(users=30, items=20, taken=10, step=1000):
    draw = random.Random(0)
    return [
        (f"u{900 + user}", f"B{500 + item}", 10**9 + user + step * place)
        for user in range(users)
        for place, item in enumerate(draw.sample(range(items), taken))
    ]


def write(path, lines, header=("user", "item", "timestamp"), delimiter=","):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(header)
        writer.writerows(lines)
    return str(path)


def read(source, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = InteractionDataModule(str(source), **(OPEN | options))
        data.setup()
    return data, [str(warning.message) for warning in caught]


def targets(data):
    """Identifiers of each user's test target."""
    return {data.user_ids[q.user]: data.catalogue.id_of(q.target) for q in data.parts.test}


def test_columns_are_found_in_any_order_and_under_common_names(tmp_path):
    expected = targets(read(write(tmp_path / "a.csv", rows()))[0])
    swapped = [(item, time, user) for user, item, time in rows()]
    header = ("movieId", "unix_timestamp", "userId")
    assert targets(read(write(tmp_path / "b.tsv", swapped, header, "\t"))[0]) == expected
    records = [dict(zip(("customer_id", "asin", "ts"), row, strict=True)) for row in rows()]
    (tmp_path / "c.json").write_text(json.dumps(records))
    assert targets(read(tmp_path / "c.json")[0]) == expected
    table = write(tmp_path / "d.csv", rows(), ("who", "film", "when"))
    named = {"user": "who", "item": "film", "timestamp": "when"}
    assert targets(read(table, columns=named)[0]) == expected


def test_the_ratings_of_movielens_are_read_by_their_header(tmp_path):
    lines = [(item[1:], user[1:], 5, time) for user, item, time in rows()]
    header = ("movieId", "userId", "rating", "timestamp")
    write(tmp_path / "ratings.csv", lines, header)
    films = [("Drama", f"Film {n} (1999)", 500 + n) for n in range(20)]
    write(tmp_path / "movies.csv", films, ("genres", "title", "movieId"))
    data, _ = read(tmp_path)
    assert (data.num_items, len(data.user_ids)) == (20, 30)
    assert str(data.catalogue[data.catalogue.number_of("507")]) == "Film 7 (1999)"


@pytest.mark.parametrize("form", ["%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"])
def test_dates_are_ordered_as_times(form, tmp_path):
    dated = [
        (user, item, np.datetime64(time, "s").item().strftime(form)) for user, item, time in rows()
    ]
    found, _ = read(write(tmp_path / "dates.csv", dated))
    expected, _ = read(write(tmp_path / "seconds.csv", rows()))
    assert targets(found) == targets(expected)


def test_equal_timestamps_have_an_order_that_rows_do_not_determine(tmp_path):
    tied = [(user, item, 10**9) for user, item, _ in rows()]
    found, texts = read(write(tmp_path / "a.csv", tied))
    shuffled = random.Random(1).sample(tied, len(tied))
    assert targets(read(write(tmp_path / "b.csv", shuffled))[0]) == targets(found)
    assert any("100% of the users have interactions with equal timestamps" in t for t in texts)
    last = list(targets(found).values())
    assert len(set(last)) > 8  # the order differs between users
    _, texts = read(write(tmp_path / "c.csv", rows()))
    assert not any("equal timestamps" in text for text in texts)


def test_leave_last_out_warns_of_the_future_and_the_time_split_does_not(tmp_path):
    shifted = [(user, item, time + 10**6 * int(user[1:])) for user, item, time in rows()]
    _, texts = read(write(tmp_path / "a.csv", shifted))
    assert any("97% of the test targets are earlier in time" in text for text in texts)
    _, texts = read(tmp_path / "a.csv", split="time")
    assert not any("earlier in time" in text for text in texts)


def test_without_timestamps_rows_are_chronological(tmp_path, caplog):
    lines = [row[:2] for row in rows()]
    with caplog.at_level(logging.INFO):
        data, texts = read(write(tmp_path / "a.csv", lines, ("user", "item")))
    assert targets(data) == targets(read(write(tmp_path / "b.csv", rows()))[0])
    assert "no timestamps: the rows are taken as chronological" in caplog.text
    assert texts == []
    with pytest.raises(ValueError, match=r"split='time': .* has no timestamps"):
        read(tmp_path / "a.csv", split="time")


def test_what_is_read_and_removed_is_printed_with_counts(tmp_path, caplog):
    lines = [(*row, 5) for row in rows()]
    lines += [("", "B500", 1, 5), ("u900", "", 1, 5), ("u900", "B501", "", 5)]
    lines += [("u901", "rare", 1, 5), ("u902", "B500", 1, 1), (*rows()[0], 5)]
    path = write(tmp_path / "a.csv", lines, ("user", "item", "timestamp", "rating"))
    with caplog.at_level(logging.INFO):
        read(path, min_rating=4, min_item_count=2)
    for text in (
        "a.csv: 306 rows, user ← user",
        "dropped 1 rows without user and 1 rows without item and 1 rows without timestamp",
        "min_rating=4 keeps 302 of 303",
        "1 repeated interactions are removed",
        "min_user_count=1 and min_item_count=2 keep 300 interactions, 30 users and 20 items of 301",
    ):
        assert text in caplog.text


def test_a_table_of_items_is_joined_by_identifier(tmp_path):
    facts = [(f"B{500 + n}", f"Film {n}", "Drama|War", f"about {n}") for n in range(19)]
    items = write(tmp_path / "i.csv", facts, ("item_id", "name", "categories", "description"))
    data, _ = read(write(tmp_path / "a.csv", rows()), items=items)
    item = data.catalogue[data.catalogue.number_of("B503")]
    assert (str(item), item.genres, item.text) == ("Film 3", ("Drama", "War"), "about 3")
    assert str(data.catalogue[data.catalogue.number_of("B519")]) == "B519"  # not in the table
    other = write(tmp_path / "o.csv", [("x", "y")], ("item_id", "name"))
    with pytest.raises(ValueError, match="no identifier of the interactions is in it"):
        read(tmp_path / "a.csv", items=other)


def test_identifiers_are_joined_in_all_forms_and_come_out_unchanged(tmp_path):
    lines = [(int(user[1:]), item[1:], time) for user, item, time in rows()]
    written = write(tmp_path / "a.csv", lines)
    films = pandas.DataFrame({"item": range(500, 520), "title": [f"T{n}" for n in range(20)]})
    films.to_parquet(tmp_path / "i.parquet")
    write(tmp_path / "p.csv", [("903.0", "501.0"), ("", "502"), ("903", "")], ("user", "target"))
    write(tmp_path / "u.csv", [(f"{n}.0", 30) for n in range(900, 930)], ("user", "age"))
    given = {"items": "i.parquet", "pairs": "p.csv", "users": "u.csv"}
    paths = {option: str(tmp_path / name) for option, name in given.items()}
    data, texts = read(written, **paths)
    question = data.path_questions()[0]
    assert data.user_ids[question.user] == "903"
    assert data.catalogue.id_of(question.target) == "501"
    assert str(data.catalogue[question.target]) == "T1"
    assert data.profiles[question.user] == "age: 30"
    assert any("2 rows without user or target are left out" in text for text in texts)
    seen = write(tmp_path / "seen.csv", [lines[0][:2]], ("user", "target"))
    assert any("already in the history" in text for text in read(written, pairs=seen)[1])


@pytest.mark.parametrize(
    ("user", "time", "warning"),
    [
        ("NULL", 10**9, "'NULL' is a user .* missing user"),
        ("u900.0", 10**9, None),
        ("9.0", 10**9, "'9' and '9.0' are different users|'9.0' and '9' are different users"),
        (" 9", 10**9, "are different users"),
        ("u1", 0, "1 of 302 rows have 0 or -1 in the column 'timestamp'"),
    ],
)
def test_identifiers_and_times_that_look_like_placeholders_are_reported(
    tmp_path, user, time, warning
):
    lines = [*rows(), ("9", "B501", 10**9), (user, "B502", time)]
    _, texts = read(write(tmp_path / "a.csv", lines))
    found = [text for text in texts if re.search("missing|are different", text)]
    assert len(found) == (warning is not None), texts
    assert warning is None or re.search(warning, found[0])


def test_an_item_has_the_genres_of_all_its_rows(tmp_path):
    kinds = [("Drama", "War|Drama"), ("Comedy",)]
    lines = [(f"B{500 + n}", f"T{n}", kind) for n in range(20) for kind in kinds[n % 2]]
    items = write(tmp_path / "i.csv", lines, ("item", "title", "category"))
    data, _ = read(write(tmp_path / "a.csv", rows()), items=items)
    assert data.catalogue[data.catalogue.number_of("B502")].genres == ("Drama", "War")
    assert data.catalogue[data.catalogue.number_of("B503")].genres == ("Comedy",)


def test_titles_and_texts_of_reviews_are_not_those_of_the_items(tmp_path, caplog):
    lines = [(*row, f"Great {n}", f"I like it {n}", "Films") for n, row in enumerate(rows())]
    header = ("user_id", "parent_asin", "timestamp", "title", "text", "category")
    with caplog.at_level(logging.INFO):
        data, _ = read(write(tmp_path / "a.csv", lines, header))
    item = data.catalogue[data.catalogue.number_of("B502")]
    assert (item.title, item.text, item.genres) == ("B502", "", ("Films",))
    assert "column 'title' differs between the rows of an item" in caplog.text
    films = [(*row, f"Film {row[1]}") for row in rows()]
    films[0] = (*films[0][:3], "Film with a typing error")
    data, _ = read(write(tmp_path / "b.csv", films, (*header[:3], "title")))
    assert data.catalogue[data.catalogue.number_of("B502")].title == "Film B502"
    stated, _ = read(tmp_path / "a.csv", columns={"title": "title"})
    assert stated.catalogue[1].title.startswith("Great")


def test_a_column_that_may_have_the_times_is_reported(tmp_path):
    header = ("user_id", "book_id", "date_added")
    _, texts = read(write(tmp_path / "a.csv", rows(), header))
    assert any("set columns={'timestamp': 'date_added'}" in text for text in texts)
    _, texts = read(write(tmp_path / "b.csv", rows(), ("user_id", "book_id", "candidate")))
    assert not any("timestamp" in text for text in texts)


def test_ratings_below_the_minimum_are_an_error_that_gives_their_range(tmp_path):
    lines = [(*row, n % 2) for n, row in enumerate(rows())]
    path = write(tmp_path / "a.csv", lines, ("user", "item", "timestamp", "rating"))
    with pytest.raises(ValueError, match=r"min_rating=4: .* has ratings from 0 to 1"):
        read(path, min_rating=4)
    nested = [{"user": {"id": user}, "item": item} for user, item, _ in rows()]
    (tmp_path / "a.json").write_text(json.dumps(nested))
    with pytest.raises(ValueError, match="column 'user', row 1 is a dict: expected an identifier"):
        read(tmp_path / "a.json")


HEADER = ("user_id:token", "item_id:token", "timestamp:float")


def test_a_file_of_recbole_has_its_items_and_users_beside_it(tmp_path):
    path = write(tmp_path / "log.inter", rows(), HEADER, "\t")
    write(tmp_path / "other.inter", rows(), HEADER, "\t")
    films = [(f"B{500 + n}", f"Film {n}", "Drama War") for n in range(20)]
    header = ("item_id:token", "movie_title:token_seq", "class:token_seq")
    write(tmp_path / "log.item", films, header, "\t")
    people = [(f"u{900 + n}", 20 + n, "F", "05201") for n in range(30)]
    header = ("user_id:token", "age:token", "gender:token", "zip_code:token")
    write(tmp_path / "log.user", people, header, "\t")
    data, _ = read(path)
    commas = write(tmp_path / "commas.inter", rows(), HEADER)
    assert targets(read(commas)[0]) == targets(data)
    (tmp_path / "commas.inter").unlink()
    item = data.catalogue[data.catalogue.number_of("B503")]
    assert (data.num_items, str(item), item.genres) == (20, "Film 3", ("Drama", "War"))
    assert data.profiles[data.user_ids.index("u904")] == "age: 24, gender: F"
    with pytest.raises(ValueError, match=r"several data sets \(log.inter, other.inter\)"):
        read(tmp_path)


def test_published_splits_are_used_as_they_are(tmp_path):
    written = {"train": [], "valid": [], "test": []}
    for place, row in enumerate(rows(users=6)):
        written[("train", "valid", "test")[max(0, place % 10 - 7)]].append(row)
    for name, lines in written.items():
        write(tmp_path / f"x.{name}.inter", lines[::-1], HEADER, "\t")
    data, _ = read(tmp_path, min_user_count=99)
    assert [len(items) for items in data.parts.train] == [8] * 6
    assert [len(question.history) for question in data.parts.test] == [9] * 6
    assert targets(data) == {user: item for user, item, _ in written["test"]}
    with pytest.raises(ValueError, match=r"split='given': .* has no split files"):
        read(write(tmp_path / "a.csv", rows()), split="given")
    (tmp_path / "x.test.inter").unlink()
    with pytest.raises(ValueError, match="several data sets"):
        read(tmp_path)


def test_each_item_of_a_published_split_is_a_question_given_the_earlier_parts():
    parts = split_as_given([np.array([1, 2, 3, 4, 5])], [np.array([0, 0, 1, 2, 2])])
    found = [(q.history.tolist(), q.target) for q in (*parts.validation, *parts.test)]
    assert found == [([1, 2], 3), ([1, 2, 3], 4), ([1, 2, 3], 5)]


def test_pairs_of_users_and_targets_replace_the_drawn_ones(tmp_path):
    lines = [("u903", "B501"), ("new", "B502"), ("u904", "gone"), ("new", "B503")]
    pairs = write(tmp_path / "pairs.csv", lines, ("user", "target"))
    data, texts = read(write(tmp_path / "a.csv", rows()), pairs=pairs, predict_users=1)
    questions = data.path_questions()
    found = [(data.user_ids[q.user], data.catalogue.id_of(q.target)) for q in questions]
    assert found == [("u903", "B501"), ("new", "B502"), ("new", "B503")]
    assert [len(question.history) for question in questions] == [10, 0, 0]
    (batch,) = data.predict_dataloader()
    assert batch["seen"].count_nonzero(dim=1).tolist() == [10, 0, 0]
    assert any("1 of 4 rows are left out" in text and "'gone'" in text for text in texts)
    assert any("1 users are not in the data" in text and "'new'" in text for text in texts)
    none = write(tmp_path / "none.csv", [("u903", "gone")], ("user", "target"))
    with pytest.raises(ValueError, match="no target of its 1 rows is in the catalogue of 20"):
        read(tmp_path / "a.csv", pairs=none)


def test_profiles_of_movielens_1m_are_words(tmp_path):
    (tmp_path / "ratings.dat").write_text("7::1::5::1\n7::2::5::2\n7::3::5::3\n")
    (tmp_path / "movies.dat").write_text("".join(f"{n}::\x85 F (1999)::Drama\n" for n in (1, 2, 3)),
                                         encoding="latin-1")  # fmt: skip
    (tmp_path / "users.dat").write_text("7::F::25::20::05201\n")
    for source in (tmp_path, tmp_path / "ratings.dat"):
        data, _ = read(source)
        assert data.profiles == ("gender: F, age: 25-34, occupation: writer",)
        assert str(data.catalogue[1]) == "\x85 F (1999)"
