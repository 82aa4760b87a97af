"""LightningDataModules, one a task, each with an embedded default."""

from typing import TYPE_CHECKING

from lightning_plugins._lazy import lazy_exports

if TYPE_CHECKING:
    from .ai_text import AITextDataModule as AITextDataModule
    from .change_captioning import ChangeCaptionDataModule as ChangeCaptionDataModule
    from .change_captioning import ScenePairDataModule as ScenePairDataModule
    from .digits import DigitsDataModule as DigitsDataModule
    from .image import ImageDataModule as ImageDataModule
    from .induction import InductionMixtureDataModule as InductionMixtureDataModule
    from .induction import MarkovChainDataModule as MarkovChainDataModule
    from .induction import RepeatedSequenceDataModule as RepeatedSequenceDataModule
    from .interactions import InteractionDataModule as InteractionDataModule
    from .manifolds import ManifoldDataModule as ManifoldDataModule
    from .partition import DirichletPartition as DirichletPartition
    from .resumable import ResumableDataLoader as ResumableDataLoader
    from .tokens import BinCorpus as BinCorpus
    from .tokens import CorpusShare as CorpusShare
    from .tokens import HubCorpus as HubCorpus
    from .tokens import TokenDataModule as TokenDataModule
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "AITextDataModule": "ai_text",
            "BinCorpus": "tokens",
            "ChangeCaptionDataModule": "change_captioning",
            "CorpusShare": "tokens",
            "DigitsDataModule": "digits",
            "DirichletPartition": "partition",
            "HubCorpus": "tokens",
            "ImageDataModule": "image",
            "InductionMixtureDataModule": "induction",
            "InteractionDataModule": "interactions",
            "ManifoldDataModule": "manifolds",
            "MarkovChainDataModule": "induction",
            "RepeatedSequenceDataModule": "induction",
            "ResumableDataLoader": "resumable",
            "ScenePairDataModule": "change_captioning",
            "TokenDataModule": "tokens",
        },
    )
