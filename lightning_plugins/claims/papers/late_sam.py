"""The claims on late-phase SAM (Zhou et al., ICLR 2025, arXiv 2410.10373), on the digits."""

from lightning_plugins.claims.claim import Claim, Column, Paper
from lightning_plugins.claims.papers import late_sam_experiments as experiments
from lightning_plugins.claims.rules import Equivalence, Recovers, Superiority

_DIGITS = "26k-parameter fully connected net, 1000 8x8 digits, 80 epochs, rho 0.1"
_FIGURE_1 = "abstract and Fig. 1: WRN-16-8, CIFAR-10, SGD to epoch 175 of 200, then SAM, 5 seeds"


def paper() -> Paper:
    """The paper's claims as measured on the digits."""
    return Paper(
        name="late-sam",
        title="Sharpness-Aware Minimization efficiently selects flatter minima late in training",
        citation="Zhou, Wang, Mao, Li, Yan; ICLR 2025; arXiv 2410.10373",
        experiments=(
            experiments.switch(),
            experiments.label_noise(),
            experiments.schedules(),
            experiments.valley(),
            experiments.adversarial(),
        ),
        claims=(
            *_flatness_claims(),
            *_accuracy_claims(),
            *_schedule_claims(),
            *_valley_claims(),
            *_adversarial_claims(),
        ),
        columns=(
            Column("test_accuracy", "test accuracy %", ".2f"),
            Column("robust_accuracy", "robust %", ".2f"),
            Column("lambda_max", "λ_max", ".3f"),
            Column("rise", "rise", ".3f"),
            Column("barrier", "barrier", ".3f"),
            Column("seconds", "seconds", ".1f"),
            Column("sam_steps", "SAM steps", ".0f"),
        ),
        next_steps=(
            "lightning-plugins reproduce late-sam --scale cpu     (5 seeds, rivals; minutes)",
            "lightning-plugins fit --config late_sam/digits       (one run; change it by options)",
            "callbacks=[LateSAM(start=0.75, rho=0.05)] in a Trainer of yours",
        ),
    )


def _flatness_claims() -> tuple[Claim, ...]:
    return (
        Claim(
            name="a late switch to SAM ends flatter than SGD",
            statement="SGD, then SAM in the last 30 % of the run, ends at a lower largest "
            "Hessian eigenvalue than SGD.",
            paper_figure="flatter than SGD; no table was read",
            source=_FIGURE_1,
            experiment="switch",
            rule=Superiority("lambda_max", arm="late SAM", over="SGD", direction="lower"),
            in_paper_regime=False,
            regime=_DIGITS,
        ),
        Claim(
            name="and flatter than what the same compute buys otherwise",
            statement="The same against SGD in 1.3 times the epochs with its own full decay, "
            "other late learning rates, and averaged weights.",
            paper_figure="not compared there, as far as was read",
            source="our rivals",
            experiment="switch",
            rule=Superiority(
                "lambda_max",
                arm="late SAM",
                over="SGD",
                direction="lower",
                rivals=("SGD 1.3x longer", "SGD no decay", "SGD long decay", "EMA", "SWA"),
            ),
            in_paper_regime=False,
            regime=_DIGITS,
        ),
        Claim(
            name="a late switch recovers most of SAM's flatness",
            statement="SAM in the last 30 % of the run recovers at least 70 % of the reduction of "
            "the largest Hessian eigenvalue that SAM in the whole run brings.",
            paper_figure="nearly all of it, with SAM in the last 12.5 % of the run",
            source=_FIGURE_1,
            experiment="switch",
            rule=Recovers("lambda_max", arm="late SAM", between=("SGD", "SAM"), share=0.7),
            in_paper_regime=False,
            regime=_DIGITS,
        ),
        Claim(
            name="a late switch ends as flat as SAM",
            statement="SAM in the last 30 % of the run ends within 10 % of the largest Hessian "
            "eigenvalue of SAM in the whole run.",
            paper_figure="nearly as flat, with SAM in the last 12.5 % of the run",
            source=_FIGURE_1,
            experiment="switch",
            rule=Equivalence("lambda_max", arm="late SAM", to="SAM", margin=0.1, relative=True),
            in_paper_regime=False,
            regime=_DIGITS,
        ),
        Claim(
            name="SAM early, then SGD, keeps little of SAM's flatness",
            statement="SAM in the first 70 % of the run, then SGD, gives back at least half of "
            "the reduction of the largest Hessian eigenvalue.",
            paper_figure="little effect of SAM early; a conjecture in the abstract",
            source="abstract",
            experiment="switch",
            rule=Recovers(
                "lambda_max",
                arm="early SAM",
                between=("SAM", "SGD"),
                share=0.5,
                direction="higher",
            ),
            in_paper_regime=False,
            regime=_DIGITS,
        ),
    )


def _accuracy_claims() -> tuple[Claim, ...]:
    return (
        Claim(
            name="a late switch generalizes as well as SAM",
            statement="SAM in the last 30 % of the run reaches the test accuracy of SAM in the "
            "whole run, within half a percentage point.",
            paper_figure="test error nearly that of SAM in the whole run; no table was read",
            source=_FIGURE_1,
            experiment="switch",
            rule=Equivalence("test_accuracy", arm="late SAM", to="SAM", margin=0.5),
            in_paper_regime=False,
            regime=f"{_DIGITS}; every arm is as accurate here, so this says little",
        ),
        Claim(
            name="with noisy labels, a late switch recovers SAM's accuracy",
            statement="With 10 % of the training labels wrong, SAM in the last 30 % of the run "
            "recovers at least 70 % of the test accuracy that SAM in the whole run gains.",
            paper_figure="test error nearly that of SAM in the whole run, with clean labels",
            source=_FIGURE_1,
            experiment="label noise",
            rule=Recovers(
                "test_accuracy",
                arm="late SAM",
                between=("SGD", "SAM"),
                share=0.7,
                direction="higher",
            ),
            in_paper_regime=False,
            regime=f"{_DIGITS}, 10 % label noise, learning rate 0.05",
        ),
    )


def _schedule_claims() -> tuple[Claim, ...]:
    return tuple(
        Claim(
            name=f"{words}, a late switch recovers most of SAM's flatness",
            statement=f"The same {words}: the tail of the run is {tail}.",
            paper_figure="the published schedules end at a constant 0.04 of the initial rate",
            source="released code: learning rate x0.2 at 0.3 and x0.04 at 0.6 of the run",
            experiment="schedules",
            rule=Recovers(
                "lambda_max",
                arm=f"late SAM, {key}",
                between=(f"SGD, {key}", f"SAM, {key}"),
                share=0.7,
            ),
            in_paper_regime=False,
            regime=f"{_DIGITS}, {words}",
        )
        for key, words, tail in (
            ("constant", "at a constant learning rate", "at the full rate"),
            ("steps", "after step decays", "at 0.04 of the rate, long after the last decay"),
        )
    )


def _valley_claims() -> tuple[Claim, ...]:
    return (
        Claim(
            name="after the switch SAM leaves the minimum of SGD",
            statement="In the epoch after the switch the training loss rises more than with SGD.",
            paper_figure="exponential escape from the minimum that SGD found",
            source="abstract: the first of two phases",
            experiment="valley",
            rule=Superiority("rise", arm="late SAM", over="SGD", direction="higher"),
            in_paper_regime=False,
            regime=_DIGITS,
        ),
        Claim(
            name="and converges within the same valley",
            statement="The barrier of the training loss on the line from the switch to the end is "
            "that of SGD going on within 0.01 nats.",
            paper_figure="fast convergence to a flatter minimum in the same valley",
            source="abstract: the second of two phases; released interpolation script",
            experiment="valley",
            rule=Equivalence("barrier", arm="late SAM", to="SGD", margin=0.01),
            in_paper_regime=False,
            regime=_DIGITS,
        ),
        Claim(
            name="which the measure can tell from another valley",
            statement="That barrier is lower than the one to the end of an independent run.",
            paper_figure="a control of ours",
            source="ours",
            experiment="valley",
            rule=Superiority("barrier", arm="late SAM", over="another seed", direction="lower"),
            in_paper_regime=False,
            regime=_DIGITS,
        ),
    )


def _adversarial_claims() -> tuple[Claim, ...]:
    return (
        Claim(
            name="late adversarial training is as robust as all of it",
            statement="Adversarial training in the last 30 % of the run reaches the accuracy under "
            "PGD of adversarial training in the whole run, within two percentage points.",
            paper_figure="an extension of the finding, named in the abstract; no table was read",
            source="abstract; released code: PGD-10, L-infinity, 4/255",
            experiment="adversarial",
            rule=Equivalence("robust_accuracy", arm="late AT", to="AT", margin=2.0),
            in_paper_regime=False,
            regime="26k-parameter net, digits, 80 epochs, L-infinity 0.1, PGD-50 with 10 restarts",
        ),
        Claim(
            name="late adversarial training recovers most of the robustness",
            statement="Adversarial training in the last 30 % of the run recovers at least 70 % of "
            "the accuracy under PGD that adversarial training in the whole run gains.",
            paper_figure="an extension of the finding, named in the abstract; no table was read",
            source="abstract; released code: PGD-10, L-infinity, 4/255",
            experiment="adversarial",
            rule=Recovers(
                "robust_accuracy",
                arm="late AT",
                between=("plain", "AT"),
                share=0.7,
                direction="higher",
            ),
            in_paper_regime=False,
            regime="26k-parameter net, digits, 80 epochs, L-infinity 0.1, PGD-50 with 10 restarts",
        ),
    )
