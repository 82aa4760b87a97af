"""Our detectors as TextAttack wants its victims."""

from collections.abc import Callable, Iterable


class TextAttackVictim:
    """From a list of texts to rows of P(human) and P(AI), as TextAttack's model wrappers give.

    TextAttack's requirements do not go together with ours, so install it in an environment of its
    own, with this package without its extras beside it, or load the detector behind any function
    from texts to scores there::

        textattack.Attack(UntargetedClassification(TextAttackVictim(detector.score)), ...)

    Args:
        score: from texts to probabilities of AI, such as ``ZeroShotDetector.score``.

    Attributes:
        model: ``score``; TextAttack names it in its warnings.
    """

    def __init__(self, score: Callable[[list[str]], Iterable[float]]) -> None:
        self.model = score

    def __call__(self, texts: list[str]) -> list[list[float]]:
        """One row a text."""
        return [[1 - float(p), float(p)] for p in self.model(list(texts))]
