"""The embedded data set: its passages, and its generation, which resumes after an interruption."""

import json

import pytest
import torch

from lightning_plugins.datamodules.ai_text.embedded_texts import (
    BATCH_SIZE,
    embedded_samples,
    passages,
    write_pairs,
)
from lightning_plugins.datamodules.ai_text.human_prose import (
    Passage,
    manual_paragraphs,
    speeches,
)
from lightning_plugins.nn.ai_text.smollm2 import _Sampling

TOKENS = 64
PASSAGES = [
    Passage(" ".join(f"{domain}{i}w{j}" for j in range(60)), domain, f"source{i % 7}")
    for i, domain in enumerate(["plays", "manuals"] * (3 * BATCH_SIZE // 2))
]


class Echo:
    """A writer that repeats the prompt's last word, and can fail after some calls."""

    def __init__(self, calls=None, fails_after=None):
        self.calls = [] if calls is None else calls
        self.fails_after = fails_after

    def num_tokens(self, text):
        return len(text.split())

    def continuations(self, prompts, temperature, new_tokens, seed):
        if self.fails_after is not None and len(self.calls) >= self.fails_after:
            raise KeyboardInterrupt
        self.calls.append((len(prompts), temperature, seed))
        return [f"{prompt.split()[-1]} {temperature} {seed}\n and  cut" for prompt in prompts]


def records(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_pairs_contain_neither_the_prompt_nor_a_cut_word(tmp_path):
    write_pairs(tmp_path / "a.jsonl", PASSAGES, Echo, TOKENS)
    found = records(tmp_path / "a.jsonl")
    assert [record["place"] for record in found] == list(range(len(PASSAGES)))
    first = found[0]
    assert first["human"].split() == PASSAGES[0].text.split()[20:]
    assert first["ai"] == "plays0w19 0.7 0 and"
    assert {record["generator"] for record in found} == {"smollm2-t0.7", "smollm2-t1.0"}


@pytest.mark.parametrize("torn", ["", '{"place": 3, "do'])
def test_an_interrupted_call_resumes_and_writes_the_same_file(tmp_path, torn):
    write_pairs(tmp_path / "whole.jsonl", PASSAGES, Echo, TOKENS)
    with pytest.raises(KeyboardInterrupt):
        write_pairs(tmp_path / "a.jsonl", PASSAGES, lambda: Echo(fails_after=2), TOKENS)
    assert not (tmp_path / "a.jsonl").exists()
    with (tmp_path / "a.partial").open("a") as file:
        file.write(torn)
    calls = []
    write_pairs(tmp_path / "a.jsonl", PASSAGES, lambda: Echo(calls), TOKENS)
    assert len(calls) == 2  # of four: two batches for each of two temperatures
    assert (tmp_path / "a.jsonl").read_text() == (tmp_path / "whole.jsonl").read_text()
    write_pairs(tmp_path / "a.jsonl", PASSAGES, lambda: pytest.fail("the file exists"), TOKENS)


def test_the_human_and_the_ai_text_of_a_passage_are_a_pair_with_its_source(tmp_path):
    write_pairs(tmp_path / "a.jsonl", PASSAGES, Echo, TOKENS)
    human, machine = embedded_samples(tmp_path / "a.jsonl")[:2]
    assert (human.label, machine.label) == (0, 1)
    assert human.pair == machine.pair == "0"
    assert human.source == machine.source == "source0"
    assert (human.generator, machine.generator) == ("human", "smollm2-t0.7")
    with pytest.raises(FileNotFoundError, match=r"prepare_data\(\) first"):
        embedded_samples(tmp_path / "b.jsonl")


def test_speeches_are_prose():
    try:
        found = list(speeches(60))
    except FileNotFoundError as error:
        pytest.skip(str(error))
    assert len(found) > 350
    assert len({one.source for one in found}) > 25
    assert all("\n" not in one.text and len(one.text.split()) >= 60 for one in found)
    # Every line of this speech in verse begins with a capital.
    assert not any("Friends, Romans, countrymen" in one.text for one in found)


def test_consecutive_paragraphs_of_a_source_are_joined_where_long_ones_are_rare(monkeypatch):
    def domain(least):
        words = [20, 25, 50, 40, 30, 80]  # the last is long enough for 10 words after the prompt
        sources = ["a", "a", "b", "b", "c", "d"]
        for place, (count, source) in enumerate(zip(words, sources, strict=True)):
            if count >= least:
                yield Passage(" ".join([f"p{place}"] * count), "plays", source)

    for name in ("speeches", "manual_paragraphs"):
        monkeypatch.setattr(f"lightning_plugins.datamodules.ai_text.embedded_texts.{name}", domain)
    (alone,) = {one.text for one in passages(2, 60)}
    assert set(alone.split()) == {"p5"}
    texts = {tuple(dict.fromkeys(one.text.split())) for one in passages(6, 25)}
    assert texts == {("p0", "p1"), ("p2",), ("p5",)}  # neither of two sources, nor too short
    with pytest.raises(ValueError, match="max_words=25: domain has only 3 passages"):
        passages(8, 25)


def test_sampling_draws_each_token_as_often_as_its_probability():
    torch.manual_seed(0)
    scores = torch.randn(1, 50)
    scores[0, [0, 49]] = -torch.inf  # neither the first nor the last token may be drawn
    sampling = _Sampling(0.7, seed=0)
    rows = sampling(torch.zeros(20_000, 1), scores.expand(20_000, -1))
    assert (rows.sum(dim=1) == 1).all()
    expected = (scores[0] / 0.7).softmax(0)
    deviation = (expected * (1 - expected) / len(rows)).sqrt()
    assert ((rows.mean(0) - expected).abs() <= 5 * deviation).all()
    again = _Sampling(0.7, seed=0)(torch.zeros(20_000, 1), scores.expand(20_000, -1))
    assert torch.equal(rows, again)


@pytest.mark.slow
def test_the_manuals_have_enough_paragraphs_from_many_modules():
    found = list(manual_paragraphs(60))
    assert len({one.text for one in found}) > 300
    assert len({one.source for one in found}) > 80


@pytest.mark.slow
def test_smollm2_writes_the_same_continuations_with_the_same_seed():
    from lightning_plugins.nn.ai_text.smollm2 import SmolLM2

    try:
        model = SmolLM2()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    prompts = ["The river runs through the", "A garden in winter"]
    once, again, other = (model.continuations(prompts, 1.0, 8, seed) for seed in (0, 0, 1))
    assert once == again != other
    assert all(text.strip() for text in once)
