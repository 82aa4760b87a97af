"""Lightning callbacks."""

from lightning_plugins.callbacks.adversarial_evaluation import AdversarialEvaluation
from lightning_plugins.callbacks.adversarial_text_evaluation import AdversarialTextEvaluation
from lightning_plugins.callbacks.block_sharpness import BlockSharpness
from lightning_plugins.callbacks.communication_schedule import CommunicationSchedule
from lightning_plugins.callbacks.decentralized_summary import DecentralizedSummary
from lightning_plugins.callbacks.exact_resume import ExactResume
from lightning_plugins.callbacks.head_scores import HeadScores
from lightning_plugins.callbacks.late_adversarial_training import LateAdversarialTraining
from lightning_plugins.callbacks.late_sam import LateSAM
from lightning_plugins.callbacks.merged_evaluation import MergedEvaluation
from lightning_plugins.callbacks.parameter_names import ParameterNames
from lightning_plugins.callbacks.phase_detector import PhaseDetector
from lightning_plugins.callbacks.routing_stats import RoutingStats
from lightning_plugins.callbacks.sharpness_monitor import SharpnessMonitor
from lightning_plugins.callbacks.staged_training import StagedTraining, TrainingStage

__all__ = [
    "AdversarialEvaluation",
    "AdversarialTextEvaluation",
    "BlockSharpness",
    "CommunicationSchedule",
    "DecentralizedSummary",
    "ExactResume",
    "HeadScores",
    "LateAdversarialTraining",
    "LateSAM",
    "MergedEvaluation",
    "ParameterNames",
    "PhaseDetector",
    "RoutingStats",
    "SharpnessMonitor",
    "StagedTraining",
    "TrainingStage",
]
