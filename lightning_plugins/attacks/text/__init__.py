"""Attacks on detectors of AI-generated text.

They do not need torch, except for the attack that uses a language model.
"""

from lightning_plugins.attacks.text.attack_texts import attack_texts
from lightning_plugins.attacks.text.constraints import (
    Constraint,
    SamePartOfSpeech,
    SentenceSimilarity,
)
from lightning_plugins.attacks.text.corruptions import CORRUPTIONS, corrupt
from lightning_plugins.attacks.text.deep_word_bug import DeepWordBug
from lightning_plugins.attacks.text.embedding_neighbours import EmbeddingNeighbours
from lightning_plugins.attacks.text.masked_lm import MaskedLM
from lightning_plugins.attacks.text.pruthi import Pruthi
from lightning_plugins.attacks.text.pwws import PWWS
from lightning_plugins.attacks.text.results import AttackResult
from lightning_plugins.attacks.text.text_bugger import TextBugger
from lightning_plugins.attacks.text.text_fooler import TextFooler
from lightning_plugins.attacks.text.victims import FreshNoise, TextAttackVictim, still_misled
from lightning_plugins.attacks.text.word_attack import WordAttack
from lightning_plugins.attacks.text.wordnet import WordNet

__all__ = [
    "CORRUPTIONS",
    "PWWS",
    "AttackResult",
    "Constraint",
    "DeepWordBug",
    "EmbeddingNeighbours",
    "FreshNoise",
    "MaskedLM",
    "Pruthi",
    "SamePartOfSpeech",
    "SentenceSimilarity",
    "TextAttackVictim",
    "TextBugger",
    "TextFooler",
    "WordAttack",
    "WordNet",
    "attack_texts",
    "corrupt",
    "still_misled",
]
