"""The targets of the loss against an independent reading of the rule of CCExpert's code."""

import pytest
import torch

pytest.importorskip("transformers")

from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from lightning_plugins.litmodels.change_captioning.prompt import QUESTION, Prompt, QwenTokenizer

CAPTIONS = [
    "the scene is the same as before",
    "a house is built .",
    "two roads\nand some trees appear",
    "many villas are built along the road , and trees are removed",
    "no change",
    "houses",
    "a parking lot replaces the bareland in the top left corner of the scene .",
    "there is no difference .",
    "",
    "trees, roads: all gone!",
]
IMAGE, TOKENS = 99, 4


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """Save a word tokenizer with Qwen's special tokens, in which ``.`` and a line end are one."""
    texts = [QUESTION.replace("<image>", " "), *CAPTIONS, "system user assistant You are a helpful"]
    split = pre_tokenizers.Split(Regex(r"\.?\n| ?\w+|[^\w\s]| "), "isolated")
    words = {piece for text in texts for piece, _ in split.pre_tokenize_str(text)}
    words |= {"\n", ".\n", "<unknown>"} | {word.strip(" ") for word in words} | {" helpful"}
    vocabulary = {word: number for number, word in enumerate(sorted(words), start=200)}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unknown>"))
    inner.pre_tokenizer = split
    made = PreTrainedTokenizerFast(tokenizer_object=inner)
    made.add_special_tokens(
        {"additional_special_tokens": ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]}
    )
    folder = tmp_path_factory.mktemp("tokenizer")
    made.save_pretrained(folder)
    return QwenTokenizer(str(folder))


def by_the_authors_rule(tokenizer, caption):
    """Return ids and targets, turn by turn.

    A turn is ``<|im_start|>ROLE, line end, content, <|im_end|>, line end``. All tokens of the
    assistant's turn are targets. Of other turns, a token is a target if it is a start, an end, or
    exactly a line end.
    """
    ids, targets = [], []
    for role, content in (
        ("system", "You are a helpful assistant."),
        ("user", QUESTION),
        ("assistant", caption),
    ):
        for piece in f"<|im_start|>{role}\n{content}<|im_end|>\n".split("<image>"):
            for token in tokenizer.encode(piece):
                ids.append(token)
                is_marker = tokenizer.decode_one(token) in ("<|im_start|>", "<|im_end|>", "\n")
                targets.append(token if role == "assistant" or is_marker else -100)
            if role == "user" and "<image>" in content:
                content = content.replace("<image>", "", 1)
                ids += [IMAGE] * TOKENS
                targets += [-100] * TOKENS
    return ids, targets


@pytest.mark.parametrize("caption", CAPTIONS)
def test_the_targets_are_those_of_the_authors_code(tokenizer, caption):
    tokenizer.decode_one = lambda token: tokenizer._tokenizer.convert_ids_to_tokens(token)
    prompt = Prompt(tokenizer, IMAGE, TOKENS)
    batch = prompt.with_answers([caption, max(CAPTIONS, key=len)], torch.device("cpu"))
    ids, targets = by_the_authors_rule(tokenizer, caption)
    length = int(batch["attention_mask"][0].sum())
    assert batch["input_ids"][0, :length].tolist() == ids
    assert batch["labels"][0, :length].tolist() == targets
    assert set(batch["labels"][0, length:].tolist()) <= {-100}
    assert prompt.questions(1, torch.device("cpu"))[0].tolist() == ids[: len(prompt.ids)]


def test_special_tokens_inside_of_a_caption_are_left_out(tokenizer):
    dirty = "a house<|im_end|> is<|im_start|> built<|endoftext|>"
    prompt = Prompt(tokenizer, IMAGE, TOKENS)
    found, clean = (
        prompt.with_answers([text], torch.device("cpu")) for text in (dirty, "a house is built")
    )
    assert all(torch.equal(found[name], clean[name]) for name in clean)


def test_a_caption_of_eight_tokens_has_20_targets_and_9_on_the_answer_alone(tokenizer):
    caption = "a house is built and trees are removed"
    counts = {}
    for loss_on in ("conversation", "answer"):
        prompt = Prompt(tokenizer, IMAGE, TOKENS, loss_on)
        labels = prompt.with_answers([caption], torch.device("cpu"))["labels"]
        counts[loss_on] = int((labels[:, 1:] != -100).sum())  # the first token is never predicted
    assert counts == {"conversation": 20, "answer": 9}
