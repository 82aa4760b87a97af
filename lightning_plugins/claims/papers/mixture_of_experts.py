"""The claims on what mixtures of experts express (Wang, E, NeurIPS 2025, arXiv 2505.24205)."""

from lightning_plugins.claims.claim import Claim, Column, Paper
from lightning_plugins.claims.papers import mixture_of_experts_experiments as experiments
from lightning_plugins.claims.rules import Equivalence, Superiority

_REGIME = "2000 Adam steps of 256 fresh samples (300 at smoke scale), rate 0.02 for every arm"
_WITHIN_A_FACTOR_OF_TWO = 0.3


def paper() -> Paper:
    """The paper's theorems and tables as measured on small networks."""
    return Paper(
        name="mixture-of-experts",
        title="On the expressive power of mixture-of-experts for structured complex tasks",
        citation="Wang, E; NeurIPS 2025; arXiv 2505.24205",
        experiments=(
            experiments.circle(),
            experiments.dimension(),
            experiments.rate(),
            experiments.experts(),
            experiments.pieces(),
            experiments.construction(),
            experiments.gates(),
            experiments.encoders(),
        ),
        claims=(
            *_circle_claims(),
            *_dimension_claims(),
            *_pieces_claims(),
            *_gate_claims(),
            _encoder_claim(),
        ),
        columns=(
            Column("mse", "MSE", ".2e"),
            Column("log10_mse", "log10 MSE", ".2f"),
            Column("log10_sup_error", "log10 sup error", ".2f"),
            Column("slope", "slope", ".2f"),
            Column("path_share", "paths used %", ".1f"),
            Column("routing_accuracy", "routing accuracy %", ".1f"),
            Column("active_parameters", "active parameters", ".0f"),
            Column("parameters", "parameters", ".0f"),
        ),
        next_steps=(
            "lightning-plugins reproduce mixture-of-experts --scale cpu  (5 seeds, every control)",
            "lightning-plugins fit --config moe/circle                   (one run, with pictures)",
            "callbacks=[RoutingStats()] for a module of yours with routings(batch)",
        ),
    )


def _lower_error(
    name: str,
    statement: str,
    experiment: str,
    arm: str,
    over: str,
    figure: str,
    source: str,
    rivals: tuple[str, ...] = (),
    metric: str = "log10_mse",
) -> Claim:
    return Claim(
        name=name,
        statement=statement,
        paper_figure=figure,
        source=source,
        experiment=experiment,
        rule=Superiority(metric, arm=arm, over=over, direction="lower", rivals=rivals),
        in_paper_regime=False,
        regime=_REGIME,
    )


def _circle_claims() -> tuple[Claim, ...]:
    table = "1-4-MoE, m=10: test error 3.40e-4 at D=16"
    return (
        _lower_error(
            "a mixture beats a dense network of as many active parameters",
            "On the circle, 4 experts of 10 neurons with one chosen err less than a dense network "
            "of 10 neurons.",
            "circle",
            "MoE, D=16",
            "dense, equal active",
            "the claimed gain: about E times fewer activated parameters",
            "section 4, after theorem 4.8",
        ),
        _lower_error(
            "and one of as many parameters in total",
            "The same against a dense network of 40 neurons.",
            "circle",
            "MoE, D=16",
            "dense, equal total",
            "not claimed, and not compared there",
            "our rival",
        ),
        _lower_error(
            "a gate that gets a gradient beats one that gets none",
            "Weighing the chosen expert by its probability errs less than the paper's weight, "
            "which is 1 where one expert is chosen, so that the gate stays as it was drawn.",
            "circle",
            "MoE, D=16",
            "MoE, weight 1",
            "the weights are a softmax over the chosen experts; how K = 1 was trained is not said",
            "section 3; appendix C was not at hand",
        ),
        Claim(
            name="zeros behind the coordinates change nothing",
            statement="With 112 more coordinates that are zero the error is the same within a "
            "factor of two. It is so by construction, for a dense network too.",
            paper_figure=f"{table}, 3.42e-4 at D=128",
            source="section 6, first experiment",
            experiment="circle",
            rule=Equivalence(
                "log10_mse", arm="MoE, D=128", to="MoE, D=16", margin=_WITHIN_A_FACTOR_OF_TWO
            ),
            in_paper_regime=False,
            regime=_REGIME,
        ),
    )


def _dimension_claims() -> tuple[Claim, ...]:
    return (
        Claim(
            name="the ambient dimension does not matter",
            statement="For a circle curved so that it spans the whole space, the error at D=128 is "
            "that at D=8 within a factor of two.",
            paper_figure="the bound depends on the intrinsic dimension alone",
            source="theorem 4.8; the embedding is ours",
            experiment="dimension",
            rule=Equivalence(
                "log10_mse", arm="circle, D=128", to="circle, D=8", margin=_WITHIN_A_FACTOR_OF_TWO
            ),
            in_paper_regime=False,
            regime=_REGIME,
        ),
        _lower_error(
            "the intrinsic dimension does",
            "Control: a function of the same smoothness on a cube of 2 dimensions is learned "
            "better than on one of 8.",
            "dimension",
            "cube, d=D=2",
            "cube, d=D=8",
            "exponent of the width: smoothness over intrinsic dimension, at most 1/2",
            "theorem 4.8",
        ),
        _lower_error(
            "width helps more where the intrinsic dimension is lower",
            "The error falls more steeply in width for d=1 than for d=3, both in 16 dimensions.",
            "rate",
            "d=1",
            "d=3",
            "exponent of the width: smoothness over intrinsic dimension, at most 1/2",
            "theorem 4.8",
            metric="slope",
        ),
        _lower_error(
            "more experts of one width err less",
            "Eight experts of 16 neurons err less than one.",
            "experts",
            "E=8",
            "E=1",
            "more charts, each with a smoother function",
            "section 4",
        ),
        _lower_error(
            "and less than a dense network of as many neurons",
            "Eight experts of 16 neurons err less than one network of 128.",
            "experts",
            "E=8",
            "dense, as E=8",
            "not claimed, and not compared there",
            "our rival",
        ),
    )


def _pieces_claims() -> tuple[Claim, ...]:
    return (
        _lower_error(
            "two layers of three experts beat one of six",
            "For nine pieces, at m=128, 2-3-MoE errs less than 1-6-MoE.",
            "pieces",
            "2-3-MoE, m=128",
            "1-6-MoE, m=128",
            "2.59e-6 against 4.60e-5 at m=128",
            "section 6, second experiment",
        ),
        _lower_error(
            "1024 pieces by 20 experts: the error falls at least as the bound does",
            "The sup error of the constructed network falls at least as fast as m^(-1/2) in "
            "width; the table has the share of pieces with a path of their own.",
            "construction",
            "constructed",
            "the theorem's bound",
            "error O(m^(-1/2)) for E^L pieces by L E experts",
            "theorem 5.3",
            metric="slope",
        ),
        _lower_error(
            "training does not find what the proof writes down",
            "The constructed network has a lower sup error than the same network trained from "
            "random weights.",
            "construction",
            "constructed",
            "trained",
            "not measured there: the theorem is on what exists",
            "theorem 5.3",
            metric="log10_sup_error",
        ),
    )


def _gate_claims() -> tuple[Claim, ...]:
    source = "section 5, suggestion of a nonlinear router"
    figure = "halves the depth that is needed; not measured there"
    helps = tuple(
        _lower_error(
            f"a nonlinear gate helps on {region}",
            f"Where regions are {words}, which no affine gate can tell apart, a gate with a hidden "
            "layer errs less than an affine one.",
            "gates",
            f"{region}, mlp",
            f"{region}, affine",
            figure,
            source,
            rivals=rivals,
        )
        for region, words, rivals in (
            (
                "shells",
                "concentric shells",
                ("shells, affine, E=8", "shells, dense, equal total"),
            ),
            ("checkerboard", "the squares of a checkerboard", ()),
        )
    )
    null = Claim(
        name="and not on a grid of cells",
        statement="Where regions are a power diagram, which an affine gate can tell apart, both "
        "gates err alike within a factor of two.",
        paper_figure=figure,
        source=f"{source}; that an affine gate is enough is our remark",
        experiment="gates",
        rule=Equivalence(
            "log10_mse", arm="cells, mlp", to="cells, affine", margin=_WITHIN_A_FACTOR_OF_TWO
        ),
        in_paper_regime=False,
        regime=_REGIME,
    )
    return (*helps, null)


def _encoder_claim() -> Claim:
    return _lower_error(
        "a reconstruction loss helps low-dimensional experts",
        "Experts that first map 64 dimensions to 4 err less with the loss than without it.",
        "encoders",
        "4 dimensions, reconstructed",
        "4 dimensions",
        "suggested, not tested",
        "discussion of variants",
    )
