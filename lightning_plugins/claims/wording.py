"""Numbers as a reader wants them: as many digits as the interval justifies."""

import math

from lightning_plugins.claims.judgement import Judgement


def estimate_text(judgement: Judgement) -> str:
    """The estimate with its interval, as a ratio first where the rule has one."""
    label = judgement.comparisons[0].label if judgement.comparisons else ""
    percent = f"{100 * judgement.confidence:.0f} %"
    plain = f"{label}: {with_interval(judgement.estimate, judgement.interval)}"
    if judgement.ratio is None or judgement.ratio_interval is None:
        return f"{plain} ({percent})"
    return (
        f"{judgement.ratio_label} {with_interval(judgement.ratio, judgement.ratio_interval)}; "
        f"{plain} ({percent})"
    )


def with_interval(estimate: float, interval: tuple[float, float]) -> str:
    """``0.72 [0.61, 0.83]``: two significant digits of the interval's half width."""
    low, high = interval
    if math.isnan(estimate):
        return "no value"
    half = (high - low) / 2
    if not math.isfinite(half):
        return (
            f"{estimate:.3g} [unbounded]" if math.isinf(half) else f"{estimate:.3g} [no interval]"
        )
    decimals = decimals_for(half or estimate)
    return f"{estimate:.{decimals}f} [{low:.{decimals}f}, {high:.{decimals}f}]"


def decimals_for(size: float) -> int:
    """Decimals that show two significant digits of a number of this size; at most 8."""
    if size == 0 or not math.isfinite(size):
        return 2
    return min(8, max(0, 1 - math.floor(math.log10(abs(size)))))


def p_text(p: float) -> str:
    """A p value; "< 0.001" below that, "-" where there is none."""
    if math.isnan(p):
        return "-"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def number_text(value: float) -> str:
    """Three significant digits; "-" for NaN."""
    return "-" if math.isnan(value) else f"{value:.3g}"


def duration_text(seconds: float) -> str:
    """``4.2 s``, ``3 min 20 s`` or ``2 h 05 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
