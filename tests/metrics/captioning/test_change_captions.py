"""ChangeCaptionScores: its parts, its invariances, and its errors."""

import subprocess
import time

import pytest
import torch
from caption_corpora import PUBLISHED, made_corpus, published_corpus

from lightning_plugins.metrics import ChangeCaptionScores
from lightning_plugins.metrics.captioning import bleu, cider_d, meteor, rouge_l
from lightning_plugins.metrics.captioning.caption_words import caption_words
from lightning_plugins.metrics.captioning.meteor_java import java_meteor, java_meteor_available

SAME = "the scene is the same as before"


def scored(*updates, **arguments):
    metric = ChangeCaptionScores(**arguments)
    for update in updates:
        metric.update(*update)
    return metric.compute()


def test_the_parts_equal_the_functions_and_s_m_is_their_mean():
    preds, references = made_corpus(40)
    found = scored((preds, references), tokenization="space")
    assert found["bleu_4"] == pytest.approx(bleu(preds, references)[3], abs=1e-12)
    assert found["rouge_l"] == pytest.approx(rouge_l(preds, references), abs=1e-12)
    assert found["cider_d"] == pytest.approx(cider_d(preds, references), abs=1e-12)
    assert found["meteor_exact_stem"] == pytest.approx(meteor(preds, references)[0], abs=1e-12)
    four = [found[name] for name in ("bleu_4", "meteor_exact_stem", "rouge_l", "cider_d")]
    assert found["s_m"] == pytest.approx(sum(four) / 4)
    assert found["s_m_meteor"] == "meteor_exact_stem"
    assert "meteor" not in found


def test_case_and_full_stops_are_ignored():
    other = ["two cars leave"]
    one = scored((["A House appears."], [["a house appears"]]), (["x"], [other]))
    two = scored((["a house appears"], [["A house  appears ."]]), (["x"], [other]))
    assert one == two


def test_the_scores_do_not_depend_on_order_or_batches_and_a_repeated_id_counts_once():
    preds, references = made_corpus(30)
    ids = [str(number) for number in range(30)]
    whole = scored((preds, references, ids))
    backwards = scored(
        *[(preds[i : i + 4], references[i : i + 4], ids[i : i + 4]) for i in range(28, -1, -4)],
        (preds[:3], references[:3], ids[:3]),
    )
    assert whole == backwards
    counted_twice = scored((preds, references), (preds[:10], references[:10]))
    assert counted_twice["s_m"] != whole["s_m"]


def test_changed_pairs_constant_captions_and_change_accuracy():
    preds = ["a house is built", SAME, "a house is built", SAME]
    references = [["one house is built"], ["a road is gone"], [SAME, "no change"], [SAME]]
    metric = ChangeCaptionScores(constant=SAME)
    metric.update(preds, references, changed=[True, True, False, False])
    found = metric.compute()
    assert found["change_accuracy"] == 0.5
    alone = scored((preds[:2], references[:2]))
    assert found["changed_s_m"] == alone["s_m"]
    floor = scored(([SAME] * 4, references))
    assert found["constant_s_m"] == floor["s_m"]


def test_pairs_of_unknown_change_do_not_count_in_change_accuracy():
    references = [["a house is built"], ["a road is built"], ["nothing has changed"]]
    scores = ChangeCaptionScores()
    for preds, part, changed in (
        (["a house", "nothing has changed"], references[:2], [True, None]),
        (["nothing has changed"], references[2:], [False]),
    ):
        scores.update(preds, part, changed=changed)
    assert scores.compute()["change_accuracy"] == 1
    scores.update(["", ""], references[1:], changed=[True, False])  # an empty caption is wrong
    assert scores.compute()["change_accuracy"] == 0.5
    assert scores.compute()["change_accuracy_exact"] == 0.5


def test_punctuation_is_dropped_or_only_full_stops():
    update = (
        ["some houses, roads and trees appear."],
        [["some houses , roads and trees appear ."]],
    )
    assert scored(update)["bleu_4"] == pytest.approx(1)
    assert scored(update, tokenization="space")["bleu_4"] == pytest.approx(0.4548, abs=1e-4)
    with pytest.raises(ValueError, match="tokenization='words'"):
        ChangeCaptionScores(tokenization="words")


def test_no_change_is_recognized_by_its_meaning_and_by_exact_sentences():
    preds = ["no difference is visible", "all is quiet", "a house is built"]
    references = [[SAME], ["all is quiet"], ["a house is built"]]
    found = scored((preds, references, None, [False, False, True]))
    assert found["change_accuracy"] == 1
    assert found["change_accuracy_exact"] == pytest.approx(2 / 3)


def test_s_m_contains_the_meteor_with_the_most_stages_that_are_available(tmp_path):
    table = tmp_path / "paraphrases"
    table.write_text("0.5\nhas vanished\nis gone\n")
    for part in ("noun", "verb", "adj", "adv"):
        words = "02 house 0 home 0" if part == "noun" else f"01 {part} 0"
        (tmp_path / f"data.{part}").write_text(f"00000001 06 n {words} 000 | meaning\n")
    update = (["the house has vanished"], [["the home is gone"]])
    names = {"wordnet": str(tmp_path), "paraphrases": str(table)}
    seen = []
    for count in range(3):
        found = scored(update, **dict(list(names.items())[:count]))
        seen.append((found["s_m_meteor"], found[found["s_m_meteor"]]))
        four = found["bleu_4"] + found["rouge_l"] + found["cider_d"] + seen[-1][1]
        assert found["s_m"] == pytest.approx(four / 4)
    assert [name for name, _ in seen] == [
        "meteor_exact_stem",
        "meteor_exact_stem_synonym",
        "meteor_exact_stem_synonym_paraphrase",
    ]
    assert seen[0][1] < seen[1][1] < seen[2][1]


@pytest.mark.slow  # each process reads METEOR's table of paraphrases
@pytest.mark.skipif(not java_meteor_available(), reason="Java or pycocoevalcap is not installed")
def test_all_scores_with_java_start_one_process(monkeypatch):
    started = []
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(a) or popen(*a, **k))
    preds, references = made_corpus(6)
    changed = [True, False] * 3
    found = scored((preds, references, None, changed), java=True, constant=SAME)
    assert len(started) == 1
    assert found["s_m_meteor"] == "meteor"
    words = lambda sentence: " ".join(caption_words(sentence))  # noqa: E731
    wanted = [list(map(words, sentences)) for sentences in references[::2]]
    total, _ = java_meteor(list(map(words, preds[::2])), wanted)
    assert found["changed_meteor"] == pytest.approx(total, abs=1e-9)


def test_compute_after_reset_raises_an_error():
    metric = ChangeCaptionScores()
    metric.update(["a"], [["a"]])
    metric.reset()
    with pytest.raises(ValueError, match="call update first"):
        metric.compute()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["a"], [["a"], ["b"]]), "references has 2 entries: expected 1, as preds has"),
        ((["a"], ["a house"]), r"references\[0\]='a house': expected a list"),
        ((["a"], [[]]), r"references\[0\]=\[\]"),
        ((["a"], [["a"]], ["1", "2"]), "ids has 2 entries"),
    ],
)
def test_the_error_names_invalid_segments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ChangeCaptionScores().update(*arguments)


def gathering_of(records_of_ranks):
    """Replace the gathering of torch.distributed by given records."""
    return lambda tensor, group=None: records_of_ranks


@pytest.mark.parametrize("shares", [(slice(0, 9), slice(9, 20)), (slice(0, 20), slice(0, 0))])
def test_two_ranks_compute_the_scores_of_one_process_even_if_one_has_no_batch(shares):
    preds, references = made_corpus(20)
    ids = [str(number) for number in range(20)]
    ranks = []
    for share in shares:
        rank = ChangeCaptionScores()
        if preds[share]:
            rank.update(preds[share], references[share], ids[share])
        # A distributed sampler fills the last batch with the first segment.
        rank.update(preds[:1], references[:1], ids[:1])
        ranks.append(rank)
    gathered = [torch.cat(rank.records) for rank in ranks]
    here = ranks[1]
    here.sync(dist_sync_fn=gathering_of(gathered), distributed_available=lambda: True)
    here._to_sync = False
    assert here.compute() == scored((preds, references, ids))


@pytest.mark.slow
def test_the_published_predictions_have_the_published_scores_within_15_seconds():
    if (corpus := published_corpus()) is None:
        pytest.skip(f"set {PUBLISHED} to the published predictions")
    started = time.process_time()
    found = scored(corpus, tokenization="space")
    assert time.process_time() - started <= 15
    assert 100 * found["bleu_4"] == pytest.approx(65.48, abs=0.005)
    assert 100 * found["rouge_l"] == pytest.approx(76.54, abs=0.005)
    assert 100 * found["cider_d"] == pytest.approx(143.28, abs=0.005)
    assert 100 * found["meteor_exact"] == pytest.approx(39.80, abs=0.005)
