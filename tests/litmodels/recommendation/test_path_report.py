"""Paths of a few users as a page and as pictures, with hostile titles."""

import io
import pickle
import warnings

import pytest
import torch
from matplotlib.text import Text
from PIL import Image

from lightning_plugins.litmodels.recommendation import (
    InfluencePathPlanner,
    InfluencePathReport,
    SequentialRecommender,
)
from lightning_plugins.litmodels.recommendation.path_table import gathered
from lightning_plugins.litmodels.recommendation.planners import NextItem, Popular, RandomItems
from lightning_plugins.litmodels.recommendation.user_models import TakesTheLikely
from lightning_plugins.reports import fonts, recommendation_paths
from lightning_plugins.reports.drawing import rendered
from lightning_plugins.reports.recommendation_paths import (
    GuidedPath,
    GuidedStep,
    frontier_picture,
    guided_paths_page,
    guided_paths_picture,
    interest_curves_picture,
)

HOSTILE = "<script>alert('$x_1$')</script>"


def path(**changes):
    steps = (
        GuidedStep("One $ to \\frac", ("War",), True, 1e-3),
        GuidedStep(HOSTILE, (), False, 0.2),
    )
    settings = {
        "planner": HOSTILE,
        "user": HOSTILE,
        "target": HOSTILE,
        "target_genres": (HOSTILE,),
        "history": (HOSTILE, "B"),
        "probability_before": 2e-4,
        "steps": steps,
    }
    return GuidedPath(**(settings | changes))


def test_text_is_escaped_on_the_page_and_bars_are_shares_of_the_highest():
    page = guided_paths_page(HOSTILE, [path()])
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 8
    assert [width in page for width in ("width: 0.1%", "width: 0.5%", "width: 100.0%")] == [
        True
    ] * 3
    assert "rejected" in page


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn."""
    drawn = []

    def keep(figure):
        drawn.append(figure)
        return rendered(figure)

    monkeypatch.setattr(recommendation_paths, "rendered", keep)
    return drawn


def test_a_picture_has_one_panel_per_path_and_its_labels_cover_no_axes(figures):
    long = path(steps=tuple(GuidedStep("A long title " * 9, ("War",), True, 0.1) for _ in range(9)))
    paths = [path(), long, path(steps=())]  # of unequal lengths
    picture = guided_paths_picture(paths)
    (figure,) = figures
    assert [len(axes.get_yticklabels()) for axes in figure.axes] == [3, 10, 1]
    renderer = figure.canvas.get_renderer()
    for axes in figure.axes:
        inside = axes.get_window_extent(renderer)
        for label in axes.get_yticklabels():
            extent = label.get_window_extent(renderer)
            assert 0 <= extent.x0 < extent.x1 <= inside.x0
    tops = [axes.get_tightbbox(renderer).y1 for axes in figure.axes]
    bottoms = [axes.get_tightbbox(renderer).y0 for axes in figure.axes]
    assert all(low >= high for low, high in zip(bottoms, tops[1:], strict=False))
    assert Image.open(io.BytesIO(picture.png)).size[0] == 1050
    with pytest.raises(ValueError, match="expected at least one"):
        guided_paths_picture([])


def test_a_frontier_has_a_point_for_each_row_with_numbers(monkeypatch):
    points = []
    from matplotlib.axes import Axes

    real = Axes.errorbar

    def errorbar(self, *at, **bars):
        points.append((*at, bars))
        return real(self, *at, **bars)

    monkeypatch.setattr(Axes, "errorbar", errorbar)
    rows = {
        "$a": {"gain": [1.0, 3.0], "price": [2.0, 2.0], "other": [0.0]},
        "b": {"gain": [0.0], "price": []},
    }
    frontier_picture(rows, "gain", ("price", "other"))
    assert [point[:2] for point in points] == [(2.0, 2.0), (0.0, 2.0)]
    assert [bars["xerr"] for *_, bars in points] == [0, 0]
    assert [bars["yerr"] for *_, bars in points] == pytest.approx([1.96, 1.96])


def test_the_mean_of_a_curve_is_over_the_users_who_reach_the_step(figures):
    interest_curves_picture({"$a": [[-5.0, -3.0], [-1.0, 0.0, 4.0]], "b": [[0.0]]}, "nats")
    first, second = (axes for axes in figures[0].axes if axes.get_visible())
    *users, mean, _ = first.get_lines()
    assert [list(line.get_ydata()) for line in users] == [[0.0, 2.0], [0.0, 1.0, 5.0]]
    assert list(mean.get_ydata()) == [0.0, 1.5, 5.0]
    assert list(second.get_lines()[-2].get_ydata()) == [0.0]
    with pytest.raises(ValueError, match="expected at least one planner"):
        interest_curves_picture({}, "nats")


def texts_of(figure):
    return [text.get_text() for text in figure.findobj(Text)]


def test_letters_that_no_font_has_are_transliterated_or_boxed_with_a_note(figures, monkeypatch):
    monkeypatch.setattr(fonts, "_installed", tuple)
    fonts._families.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of missing glyphs
        guided_paths_picture([path(target="七人 Ｆｕｌｌ Амели", planner="p", user="u")])
    fonts._families.cache_clear()
    texts = texts_of(figures[0])
    assert any("u to □□ Full Амели" in text for text in texts)
    assert any(
        "no installed font has; Debian: apt install fonts-noto-cjk" in text for text in texts
    )


def test_an_installed_font_draws_letters_that_the_default_lacks(figures):
    if not any("CJK" in name for name, _ in fonts._installed()):
        pytest.skip("no font with Chinese letters is installed (Debian: fonts-noto-cjk)")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        guided_paths_picture([path(target="七人の侍 기생충")])
    assert any("七人の侍 기생충" in text for text in texts_of(figures[0]))
    assert not any("□" in text for text in texts_of(figures[0]))


@pytest.fixture
def run(quiet_trainer, walking_data, tmp_path):
    def predict(report, **changes):
        paths = []
        for seed in range(2):
            torch.manual_seed(seed)
            module = SequentialRecommender(24, "gru4rec", dim=8, max_length=8)
            module.configure_model()
            torch.nn.init.normal_(module.network.item_embedding.weight.data[1:])
            trainer = quiet_trainer()
            trainer.strategy.connect(module)
            paths.append(str(tmp_path / f"{seed}.ckpt"))
            trainer.save_checkpoint(paths[-1])
        planners = {"next": NextItem(), "popular": Popular(), "random": RandomItems()}
        module = InfluencePathPlanner(
            paths[0], {"gru": paths[1]}, planners=planners, path_length=3, **changes
        )
        trainer = quiet_trainer(callbacks=[report], default_root_dir=tmp_path)
        found = trainer.predict(module, datamodule=walking_data(evaluation_batch_size=5))
        return module, [one for batch in found for one in batch]

    return predict


def test_predict_writes_page_and_pictures_of_the_first_users(run, tmp_path):
    _, paths = run(InfluencePathReport(users=2, planners=["next", "random"]))
    page = (tmp_path / "paths.html").read_text("utf-8")
    users = list(dict.fromkeys(one.user for one in paths))[:2]
    assert page.count("<h3>") == 2 * 2
    for one in paths:
        heading = f"<h3>{one.planner}: user {one.user} to "
        assert (heading in page) == (one.user in users and one.planner != "popular")
    assert Image.open(tmp_path / "paths.png").size[1] > 800
    assert Image.open(tmp_path / "frontier.png").size[0] > 1000
    assert Image.open(tmp_path / "interest.png").size[0] > 1000


def test_the_reported_probability_follows_the_accepted_items(run, walking_data):
    report = InfluencePathReport(users=1)
    module, paths = run(report, user_model=TakesTheLikely(6))
    data = walking_data()
    data.setup()
    question = data.path_questions()[0]
    for shown in report._paths:
        user = data.user_ids[question.user]
        (one,) = [p for p in paths if p.user == user and p.planner == shown.planner]
        taken = question.history.tolist()
        for step, name, is_accepted in zip(shown.steps, one.items, one.is_accepted, strict=True):
            item = data.catalogue.number_of(name)
            taken += [item] if is_accepted else []
            chances = module.first_evaluator(torch.tensor([taken[-8:]]))[0].softmax(0)
            assert step.target_probability == pytest.approx(float(chances[question.target]))
            assert (step.title, step.is_taken) == (str(data.catalogue[item]), is_accepted)
            assert step.identifier == name


def test_wrong_arguments_are_refused(run, quiet_trainer):
    with pytest.raises(ValueError, match="users=0: expected at least 1"):
        InfluencePathReport(users=0)
    with pytest.raises(ValueError, match="'x' is not one of next, popular, random"):
        run(InfluencePathReport(planners=["x"]))
    with pytest.raises(ValueError, match="the model is a SequentialRecommender: remove it"):
        InfluencePathReport().on_predict_start(None, SequentialRecommender(5))


def test_values_are_gathered_without_pickled_objects():
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        values = [("user", 3, (1.5, "item"), True), {"a": [1.0]}]
        assert gathered(values) == values
        with pytest.raises(pickle.UnpicklingError):
            gathered([path()])
    finally:
        torch.distributed.destroy_process_group()
