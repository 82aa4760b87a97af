"""The rules by which a claim is judged; each is fixed, and hashed, before the run."""

from lightning_plugins.claims.equivalence import Equivalence
from lightning_plugins.claims.recovers import Recovers
from lightning_plugins.claims.rule import Rule, Values
from lightning_plugins.claims.superiority import Superiority

__all__ = ["Equivalence", "Recovers", "Rule", "Superiority", "Values"]
