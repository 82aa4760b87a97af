"""Attacks on detectors of AI-generated text, one a file, with shared searches and no torch."""

from lightning_plugins.attacks.text.attack import WordAttack
from lightning_plugins.attacks.text.corruptions import CORRUPTIONS, corrupt
from lightning_plugins.attacks.text.deep_word_bug import DeepWordBug
from lightning_plugins.attacks.text.embedding_neighbours import EmbeddingNeighbours
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
    "Pruthi",
    "TextAttackVictim",
    "TextBugger",
    "WordAttack",
    "WordNet",
    "attack_texts",
    "corrupt",
    "still_misled",
]
