"""Lightning callbacks."""

from typing import TYPE_CHECKING

from lightning_plugins._lazy import lazy_exports

if TYPE_CHECKING:
    from .adversarial_evaluation import AdversarialEvaluation as AdversarialEvaluation
    from .adversarial_text_evaluation import AdversarialTextEvaluation as AdversarialTextEvaluation
    from .block_sharpness import BlockSharpness as BlockSharpness
    from .communication_schedule import CommunicationSchedule as CommunicationSchedule
    from .decentralized_summary import DecentralizedSummary as DecentralizedSummary
    from .exact_resume import ExactResume as ExactResume
    from .head_scores import HeadScores as HeadScores
    from .late_adversarial_training import LateAdversarialTraining as LateAdversarialTraining
    from .late_sam import LateSAM as LateSAM
    from .merged_evaluation import MergedEvaluation as MergedEvaluation
    from .parameter_names import ParameterNames as ParameterNames
    from .phase_detector import PhaseDetector as PhaseDetector
    from .pretraining_monitor import PretrainingMonitor as PretrainingMonitor
    from .router_bias_balancing import RouterBiasBalancing as RouterBiasBalancing
    from .routing_stats import RoutingStats as RoutingStats
    from .sharpness_monitor import SharpnessMonitor as SharpnessMonitor
    from .staged_training import StagedTraining as StagedTraining
    from .staged_training import TrainingStage as TrainingStage
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "AdversarialEvaluation": "adversarial_evaluation",
            "AdversarialTextEvaluation": "adversarial_text_evaluation",
            "BlockSharpness": "block_sharpness",
            "CommunicationSchedule": "communication_schedule",
            "DecentralizedSummary": "decentralized_summary",
            "ExactResume": "exact_resume",
            "HeadScores": "head_scores",
            "LateAdversarialTraining": "late_adversarial_training",
            "LateSAM": "late_sam",
            "MergedEvaluation": "merged_evaluation",
            "ParameterNames": "parameter_names",
            "PhaseDetector": "phase_detector",
            "PretrainingMonitor": "pretraining_monitor",
            "RouterBiasBalancing": "router_bias_balancing",
            "RoutingStats": "routing_stats",
            "SharpnessMonitor": "sharpness_monitor",
            "StagedTraining": "staged_training",
            "TrainingStage": "staged_training",
        },
    )
