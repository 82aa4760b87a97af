"""What became of one text under attack."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["skipped", "failed", "succeeded"]


@dataclass(frozen=True)
class AttackResult:
    """One text before and after an attack.

    Attributes:
        text: that was attacked.
        label: of it: 0 human, 1 AI. No attack changes it.
        adversarial: the text that was found; of a skipped one the text itself.
        status: ``skipped`` where the detector was wrong before the attack.
        clean_score: probability of AI of ``text``.
        score: of ``adversarial``, as the search heard it.
        queries: texts that were scored, the clean one included.
        words: of the text.
        changed_words: of them.
    """

    text: str
    label: int
    adversarial: str
    status: Status
    clean_score: float
    score: float
    queries: int
    words: int
    changed_words: int
