"""Attacks on detectors of AI-generated text, one a file, with shared searches.

They need no torch, but for the one by a language model.
"""

from lightning_plugins.attacks.text.attack import WordAttack
from lightning_plugins.attacks.text.corruptions import CORRUPTIONS, corrupt
from lightning_plugins.attacks.text.deep_word_bug import DeepWordBug
from lightning_plugins.attacks.text.embedding_neighbours import EmbeddingNeighbours
from lightning_plugins.attacks.text.masked_lm import MaskedLM
from lightning_plugins.attacks.text.pruthi import Pruthi
from lightning_plugins.attacks.text.pwws import PWWS
from lightning_plugins.attacks.text.randomised import FreshNoise, still_misled
from lightning_plugins.attacks.text.result import AttackResult
from lightning_plugins.attacks.text.run import attack_texts
from lightning_plugins.attacks.text.text_attack_adapter import TextAttackVictim
from lightning_plugins.attacks.text.text_bugger import TextBugger
from lightning_plugins.attacks.text.wordnet import WordNet

__all__ = [
    "CORRUPTIONS",
    "PWWS",
    "AttackResult",
    "DeepWordBug",
    "EmbeddingNeighbours",
    "FreshNoise",
    "MaskedLM",
    "Pruthi",
    "TextAttackVictim",
    "TextBugger",
    "WordAttack",
    "WordNet",
    "attack_texts",
    "corrupt",
    "still_misled",
]
