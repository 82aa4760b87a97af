"""The metric that computes all scores of a change captioner over a corpus."""

import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_plugins.metrics.captioning.bleu import bleu
from lightning_plugins.metrics.captioning.cider_d import cider_d
from lightning_plugins.metrics.captioning.meteor import meteor
from lightning_plugins.metrics.captioning.meteor_java import java_meteor, java_meteor_available
from lightning_plugins.metrics.captioning.rouge_l import rouge_l


class ChangeCaptionScores(Metric):
    """BLEU, ROUGE-L, CIDEr-D, METEOR and their mean S*_m, as in change-captioning papers.

    Sentences are converted to lower case without full stops, as in the evaluation of CCExpert
    (arXiv 2411.11360); words are separated by white space. The corpus of all ranks is scored as a
    whole. With ``ids``, a segment that occurs twice (a sampler fills the last batch) counts once.
    The result does not depend on the order of updates or the number of processes, to the last
    digit.

    ``compute`` returns a dictionary of fractions; papers print them times 100:

    - ``bleu_1`` to ``bleu_4``, ``rouge_l``, ``cider_d`` (at most 10);
    - ``meteor_exact`` and ``meteor_exact_stem``, and with ``java=True`` also ``meteor``, the
      complete METEOR 1.5, which is higher;
    - ``s_m = (bleu_4 + METEOR + rouge_l + cider_d) / 4``, and in ``s_m_meteor`` the name of the
      METEOR score that it contains: ``meteor`` if present, else ``meteor_exact_stem``;
    - if ``changed`` was given: ``changed_s_m`` and its four parts over the changed pairs, with
      document frequencies of these pairs; and ``change_accuracy``, the share of pairs for which the
      caption is right about whether anything changed. A caption states no change if it equals a
      reference caption of some pair without change;
    - with ``constant``: ``constant_s_m`` and its four parts, the scores of a captioner that always
      returns this sentence. On LEVIR-CC its S*_m is near 0.60, because half of the pairs have no
      change, so scores can only be interpreted relative to it.

    Args:
        java: Also run the original METEOR 1.5, which takes about a minute for 2,000 segments.
        constant: Sentence of the constant captioner.

    Raises:
        ImportError: ``java=True`` without Java or ``pycocoevalcap``.
        ValueError: Captions, references and ids differ in number, or a segment has no reference.

    Example::

        scores = ChangeCaptionScores(constant="the scene is the same as before")
        scores.update(["a house appears"], [["a house is built", "one house appears"]], ids=["7"])
        scores.compute()["s_m"]
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    def __init__(self, java: bool = False, constant: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if java and not java_meteor_available():
            raise ImportError(
                "java=True requires java on the PATH, and pycocoevalcap: pip install pycocoevalcap"
            )
        self.java = java
        self.constant = constant
        # Sentences are stored as bytes, one JSON record per line, because only tensors are synced.
        self.add_state("records", default=[], dist_reduce_fx="cat")
        self.records: list[Tensor]

    def update(
        self,
        preds: Sequence[str],
        references: Sequence[Sequence[str]],
        ids: Sequence[str] | None = None,
        changed: Sequence[bool] | None = None,
    ) -> None:
        """Add segments.

        Args:
            preds: One generated caption per pair.
            references: One or more human captions per pair.
            ids: Names of the pairs; of several segments with the same name only one counts.
            changed: Whether anything changed between the two images of each pair.
        """
        for name, values in {"references": references, "ids": ids, "changed": changed}.items():
            if values is not None and len(values) != len(preds):
                raise ValueError(
                    f"{name} has {len(values)} entries: expected {len(preds)}, as preds has"
                )
        lines = []
        for index, (pred, sentences) in enumerate(zip(preds, references, strict=True)):
            if isinstance(sentences, str) or not sentences:
                raise ValueError(
                    f"references[{index}]={sentences!r}: expected a list of one or more sentences"
                )
            record = [
                None if ids is None else str(ids[index]),
                _normalized(pred),
                [_normalized(sentence) for sentence in sentences],
                None if changed is None else bool(changed[index]),
            ]
            lines.append(json.dumps(record) + "\n")
        encoded = torch.frombuffer(bytearray("".join(lines), "ascii"), dtype=torch.uint8)
        self.records.append(encoded.to(self.device))

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Gather the records of all processes, including those without a batch."""
        if isinstance(self.records, list) and not self.records:
            self.records.append(torch.zeros(0, dtype=torch.uint8, device=self.device))
        super().sync(*args, **kwargs)

    def compute(self) -> dict[str, Any]:
        """Return the scores of all segments."""
        records = self._distinct_records()
        if not records:
            raise ValueError("no captions to score: call update first")
        preds, references = [r[1] for r in records], [r[2] for r in records]
        scores = self._scores(preds, references)
        changed = [record for record in records if record[3]]
        if changed:
            part = self._scores([r[1] for r in changed], [r[2] for r in changed])
            scores |= {f"changed_{name}": part[name] for name in _parts(part)}
        if all(record[3] is not None for record in records):
            scores["change_accuracy"] = _change_accuracy(records)
        if self.constant is not None:
            floor = self._scores([_normalized(self.constant)] * len(references), references)
            scores |= {f"constant_{name}": floor[name] for name in _parts(floor)}
        return scores

    def _distinct_records(self) -> list[Any]:
        """Return the records in a fixed order, so that sums do not depend on the ranks."""
        parts = self.records if isinstance(self.records, list) else [self.records]
        text = b"".join(part.cpu().numpy().tobytes() for part in parts).decode("ascii")
        kept: dict[Any, Any] = {}
        for number, line in enumerate(sorted(text.splitlines())):
            record = json.loads(line)
            kept.setdefault(number if record[0] is None else record[0], record)
        return list(kept.values())

    def _scores(self, preds: list[str], references: list[list[str]]) -> dict[str, Any]:
        scores: dict[str, Any] = {
            f"bleu_{n}": score for n, score in enumerate(bleu(preds, references), start=1)
        }
        scores["rouge_l"] = rouge_l(preds, references)
        scores["cider_d"] = cider_d(preds, references)
        scores["meteor_exact"] = meteor(preds, references, stems=False)[0]
        scores["meteor_exact_stem"] = meteor(preds, references)[0]
        if self.java:
            scores["meteor"] = java_meteor(preds, references)[0]
        used = "meteor" if self.java else "meteor_exact_stem"
        four = scores["bleu_4"], scores[used], scores["rouge_l"], scores["cider_d"]
        return scores | {"s_m": sum(four) / 4, "s_m_meteor": used}


def _normalized(sentence: str) -> str:
    return " ".join(sentence.lower().replace(".", "").split())


def _parts(scores: dict[str, Any]) -> list[str]:
    return ["s_m", "bleu_4", scores["s_m_meteor"], "rouge_l", "cider_d"]


def _change_accuracy(records: list[Any]) -> float:
    nothing = {sentence for record in records if not record[3] for sentence in record[2]}
    return sum((record[1] not in nothing) == record[3] for record in records) / len(records)
