"""LocalModel: batches, reuse of keys and values, and the trie, compared with single prompts."""

import pytest
import torch

from lightning_plugins.litmodels.recommendation.language.local_model import LocalModel

TITLES = [f"Film {number} ({1980 + number})" for number in range(1, 13)]
PROMPTS = ["Path:\n", "History, oldest first:\n- Film 3 (1983)\nTarget: Film 9\nPath:\n", "x\n"]


@pytest.fixture(scope="module")
def model(tiny_checkpoint):
    return LocalModel(tiny_checkpoint, batch_size=2, max_tokens=6)


@torch.inference_mode()
def test_title_scores_equal_the_scores_of_whole_texts(model):
    found = model.title_log_probs(PROMPTS, [TITLES[:4], TITLES[4:], TITLES[:1]])
    for prompt, titles, scores in zip(
        PROMPTS, [TITLES[:4], TITLES[4:], TITLES[:1]], found, strict=True
    ):
        start = model.tokenizer.encode(prompt)
        for title, score in zip(titles, scores.tolist(), strict=True):
            end = model.tokenizer.encode(f"- {title}\n")
            whole = torch.tensor([start + end])
            logits = model.network(whole).logits[0, len(start) - 1 : -1].log_softmax(-1)
            expected = logits.gather(1, torch.tensor(end)[:, None]).mean()
            assert score == pytest.approx(float(expected), abs=1e-4)


def test_a_padded_batch_writes_the_same_as_each_prompt_alone(model):
    trie, allowed = model.trie(TITLES), torch.ones(3, 13, dtype=torch.bool)
    allowed[:, 0] = False
    allowed[1, 1:6] = False
    together = model.paths(PROMPTS, trie, allowed, 4)
    alone = [
        model.paths([prompt], trie, allowed[n : n + 1], 4)[0] for n, prompt in enumerate(PROMPTS)
    ]
    assert together == alone
    assert all(len(set(path)) == 4 for path in together)
    assert min(together[1]) > 5


@torch.inference_mode()
def test_each_title_is_the_greedy_path_through_the_trie(model):
    trie, allowed = model.trie(TITLES), torch.ones(1, 13, dtype=torch.bool)
    allowed[:, 0] = False
    ((item,),) = model.paths(PROMPTS[:1], trie, allowed, 1)
    text, rest = PROMPTS[0], [model.tokenizer.encode(f"- {title}\n") for title in TITLES]
    written = []
    while not (len(rest) == 1 and len(written) == len(rest[0])):
        tokens = torch.tensor([model.tokenizer.encode(text) + written])
        logits = model.network(tokens).logits[0, -1]
        place = len(written)
        written.append(max({row[place] for row in rest}, key=lambda token: float(logits[token])))
        rest = [row for row in rest if row[place] == written[-1]]
    assert f"- {TITLES[item - 1]}\n" == model.tokenizer.decode(written)


def test_replies_stop_at_the_limit_and_depend_only_on_the_seed(tiny_checkpoint, model):
    talks = [[{"role": "user", "content": text}] for text in ("a", "b c", "d")]
    before = torch.get_rng_state()
    greedy = model.complete(talks)
    assert [reply.is_truncated for reply in greedy] == [True] * 3
    sampled = LocalModel(tiny_checkpoint, max_tokens=6, temperature=1.0)
    first, again, other = (sampled.complete(talks, seed=seed) for seed in (1, 1, 2))
    assert first == again != other
    assert torch.equal(torch.get_rng_state(), before)


def test_a_reply_ends_at_each_end_token_of_the_checkpoint(tiny_checkpoint, monkeypatch):
    model = LocalModel(tiny_checkpoint, max_tokens=6)
    (written,) = model.complete([[{"role": "user", "content": "a"}]])
    tokens = model.tokenizer.encode(written.text, add_special_tokens=False)
    assert written.is_truncated
    end_of_turn = tokens[2]
    monkeypatch.setattr(
        model.network.generation_config, "eos_token_id", [model._end_token, end_of_turn]
    )
    (cut,) = model.complete([[{"role": "user", "content": "a"}]])
    assert cut.text == model.tokenizer.decode(tokens[: tokens.index(end_of_turn)])
    assert not cut.is_truncated


def test_a_saved_model_writes_the_same_paths(tiny_checkpoint, model, tmp_path):
    model.save(tmp_path)
    trie, allowed = model.trie(TITLES), torch.ones(1, 13, dtype=torch.bool)
    again = LocalModel(str(tmp_path))
    assert again.paths(PROMPTS[:1], trie, allowed, 3) == model.paths(PROMPTS[:1], trie, allowed, 3)


def test_the_chat_template_is_used_if_there_is_one(tiny_checkpoint):
    model = LocalModel(tiny_checkpoint)
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    assert model.prompt(messages) == "u\nPath:\n"
    model.tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    )
    assert model.prompt(messages) == "<system>s<user>u"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size=0: expected at least 1"),
        ({"max_tokens": 0}, "max_tokens=0: expected at least 1"),
        ({"temperature": -1}, "temperature=-1: expected 0 or more"),
        ({"dtype": "float7"}, "dtype='float7': expected a dtype of torch"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        LocalModel("nowhere", **arguments)
