"""Roles of columns, and conversion of their values."""

from datetime import UTC, datetime

import numpy as np
import pandas
import pytest

from lightning_plugins.datamodules.tables import (
    Role,
    describe_columns,
    find_columns,
    missing_rows,
    numbers,
    timestamps,
)


def is_few(column):
    return column.nunique() < 3


def is_many(column):
    return column.nunique() > 3


def is_long(column):
    return column.str.len().mean() > 3


ROLES = [
    Role("user", ("uid", "user_id"), required=True),
    Role("text", ("document", "body"), is_long, True, by_content=is_long),
    Role("domain", ("source",), is_few),
    Role("group", ("source",), is_many),
]


def table(**columns):
    return pandas.DataFrame({name: list(values) for name, values in columns.items()})


def test_roles_are_found_by_name_and_content():
    rows = table(userId="abcd", Document=["long text"] * 4, source="xyxy", other="1234")
    found = find_columns(rows, ROLES)
    assert found == {"user": "userId", "text": "Document", "domain": "source"}
    rows["source"] = list("wxyz")
    assert find_columns(rows, ROLES)["group"] == "source"
    assert describe_columns(rows, found) == (
        "user ← userId, text ← Document, domain ← source, not used: other"
    )


def test_the_own_name_of_a_role_comes_first_and_content_last():
    rows = table(user="ab", uid="cd", text=["long text"] * 2, body=["long body"] * 2)
    assert find_columns(rows, ROLES) == {"user": "user", "text": "text"}
    rows = table(user="ab", n="12", prose=["long text"] * 2)
    assert find_columns(rows, ROLES)["text"] == "prose"


def test_what_is_ambiguous_is_an_error_that_shows_the_option():
    rows = table(user="ab", document=["long text"] * 2, body=["long body"] * 2)
    with pytest.raises(ValueError, match=r"columns={'text': 'document'} or columns={'text': 'body"):
        find_columns(rows, ROLES, source="x.csv")
    assert find_columns(rows, ROLES, {"text": "body"})["text"] == "body"
    unclear = table(user="abc", text=["long text"] * 3, source="xyz")
    with pytest.raises(ValueError, match=r"x.csv: column 'source' can be the domain or the group"):
        find_columns(unclear, ROLES, source="x.csv")
    assert find_columns(unclear, ROLES, {"domain": "source"})["domain"] == "source"
    with pytest.raises(ValueError, match=r"no column is named as the user.*columns={'user': 'n'}"):
        find_columns(table(n="ab", text=["long text"] * 2), ROLES)
    with pytest.raises(ValueError, match="'words': expected some of user, text"):
        find_columns(rows, ROLES, {"words": "body"})
    with pytest.raises(ValueError, match=r"no such column, it has user, document, body"):
        find_columns(rows, ROLES, {"text": "words"})


def test_tables_without_rows_or_without_names_of_columns_are_refused():
    with pytest.raises(ValueError, match=r"x.csv has no rows"):
        find_columns(table(user="", text=""), ROLES, source="x.csv")
    long = "it was a long time ago that the first row had names of columns"
    identifier = "f1b1cf71-bd35-4e99-8624-24a6e15f133a"
    for name in ("1000000000", "4,5", "2009-05-04T23:08:57Z", identifier, long):
        rows = table(u900="ab", **{name: "cd"})
        with pytest.raises(ValueError, match="first row has to contain the names of the columns"):
            find_columns(rows, ROLES)


def test_missing_values_are_given_by_row():
    assert missing_rows(pandas.Series(["a", "", None, " ", "b"])) == [2, 3, 4]
    assert missing_rows(pandas.Series([1.0, np.nan])) == [2]


def test_numbers_are_read_from_strings_booleans_and_numbers():
    for values in (["1.0", "0"], ["True", "false"], [True, False], [1, 0], ["1", 0]):
        np.testing.assert_array_equal(numbers(pandas.Series(values)), [1, 0])
    np.testing.assert_array_equal(numbers(pandas.Series(["2", "", None])), [2, np.nan, np.nan])
    np.testing.assert_array_equal(numbers(pandas.Series(["2", "NULL", r"\N"])), [2, np.nan, np.nan])
    for wrong in ("two", "inf", "-Infinity"):
        with pytest.raises(ValueError, match=f"column 'x', row 2: '{wrong}': expected a number"):
            numbers(pandas.Series(["1", wrong], name="x"))


def test_times_are_read_from_dates_and_from_epochs_of_each_unit():
    moment = datetime(2024, 5, 31, 12, tzinfo=UTC)
    seconds = moment.timestamp()
    forms = [
        ["2024-05-31T12:00:00", "2024-05-31 14:00:00+02:00"],
        [seconds, seconds],
        *([[int(seconds * unit)] * 2 for unit in (1, 10**3, 10**6, 10**9)]),
        [str(seconds), str(int(seconds))],
        [moment, moment],
    ]
    for form in forms:
        np.testing.assert_allclose(timestamps(pandas.Series(form)), [seconds] * 2, rtol=1e-15)
    column = pandas.Series(pandas.to_datetime(["2024-05-31 12:00", None]))
    np.testing.assert_array_equal(timestamps(column), [seconds, np.nan])
    np.testing.assert_array_equal(timestamps(pandas.Series([1, 2, 3])), [1, 2, 3])
    with pytest.raises(ValueError, match="row 2: '31/05/2024': expected an ISO 8601 date"):
        timestamps(pandas.Series(["2024-05-31", "31/05/2024"], name="when"))
    np.testing.assert_array_equal(timestamps(pandas.Series([-5, 0, 5])), [-5, 0, 5])
    dates = pandas.Series(["2024-05-31T12:00:00", "null"])
    np.testing.assert_array_equal(timestamps(dates), [seconds, np.nan])
    for values, row, why in (
        (["2019-02-30"], 1, "ISO 8601"),
        (["5", "6", "soon"], 3, "a number"),
        ([seconds, 1e3 * seconds, seconds], 2, "the unit of most other rows"),
        ([1e6 * seconds, 1e6 * seconds, seconds], 3, "the unit of most other rows"),
    ):
        with pytest.raises(ValueError, match=rf"row {row}: .*{why}"):
            timestamps(pandas.Series(values, name="when"))
