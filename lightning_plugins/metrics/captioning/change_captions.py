"""The metric that computes all scores of a change captioner over a corpus."""

import json
import operator
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_plugins.metrics.captioning.bleu import bleu
from lightning_plugins.metrics.captioning.caption_words import (
    Tokenization,
    caption_words,
    states_no_change,
)
from lightning_plugins.metrics.captioning.cider_d import cider_d
from lightning_plugins.metrics.captioning.meteor import MatchStages, meteor
from lightning_plugins.metrics.captioning.meteor_java import JavaMeteor, java_meteor_available
from lightning_plugins.metrics.captioning.meteor_tables import read_paraphrases, wordnet_synonyms
from lightning_plugins.metrics.captioning.rouge_l import rouge_l


class ChangeCaptionScores(Metric):
    """BLEU, ROUGE-L, CIDEr-D, METEOR and their mean S*_m, as in change-captioning papers.

    Sentences are split by
    :func:`~lightning_plugins.metrics.captioning.caption_words.caption_words`. The corpus of all
    ranks is scored as a whole. With ``ids``, a segment that occurs twice (a sampler fills the last
    batch) counts once. The result does not depend on the order of updates or the number of
    processes, to the last digit.

    ``compute`` returns a dictionary of fractions; papers print them times 100:

    - ``bleu_1`` to ``bleu_4``, ``rouge_l``, ``cider_d`` (at most 10);
    - ``meteor_exact`` and ``meteor_exact_stem``; with ``wordnet`` also
      ``meteor_exact_stem_synonym``, and with ``paraphrases`` that name with ``_paraphrase``; with
      ``java=True`` also ``meteor``, the original METEOR 1.5. Each is higher than the one before;
    - ``s_m = (bleu_4 + METEOR + rouge_l + cider_d) / 4``, and in ``s_m_meteor`` the name of the
      METEOR score that it contains, the last of this list that was computed;
    - if ``changed`` was given: ``changed_s_m`` and its four parts over the changed pairs, with
      document frequencies of these pairs; and ``change_accuracy``, the share of pairs for which the
      caption is right about whether anything changed, among the pairs for which it is known. A
      caption states no change if it equals a reference caption of some pair without change, or by
      its meaning (:func:`~lightning_plugins.metrics.captioning.caption_words.states_no_change`).
      ``change_accuracy_exact`` only applies the first rule. An empty caption is wrong;
    - with ``constant``: ``constant_s_m`` and its four parts, the scores of a captioner that always
      returns this sentence. On LEVIR-CC its S*_m is near 0.60, because half of the pairs have no
      change, so scores can only be interpreted relative to it.

    Args:
        java: Also run the original METEOR 1.5, which takes about a minute for 2,000 segments.
        constant: Sentence of the constant captioner.
        tokenization: ``ptb`` drops all punctuation, as the COCO scripts do; ``space`` only drops
            full stops, as the evaluation of CCExpert (arXiv 2411.11360) does.
        wordnet: Folder of WordNet 3's data files, for synonyms; see
            :class:`~lightning_plugins.attacks.text.WordNet`.
        paraphrases: File of METEOR's table of paraphrases (``paraphrase-en.gz``).

    Raises:
        ImportError: ``java=True`` without Java or ``pycocoevalcap``.
        FileNotFoundError: WordNet's files, or the table, are not found.
        ValueError: Captions, references and ids differ in number, or a segment has no reference.

    Example::

        scores = ChangeCaptionScores(constant="the scene is the same as before")
        scores.update(["a house appears"], [["a house is built", "one house appears"]], ids=["7"])
        scores.compute()["s_m"]
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    def __init__(
        self,
        java: bool = False,
        constant: str | None = None,
        tokenization: Tokenization = "ptb",
        wordnet: str | None = None,
        paraphrases: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if tokenization not in get_args(Tokenization):
            raise ValueError(f"tokenization={tokenization!r}: expected 'ptb' or 'space'")
        if paraphrases is not None and not Path(paraphrases).is_file():
            raise FileNotFoundError(f"paraphrases={paraphrases!r} is missing")
        if wordnet is not None:
            wordnet_synonyms(wordnet)  # read now, because an error after an epoch would be late
        if java and not java_meteor_available():
            raise ImportError(
                "java=True requires java on the PATH, and pycocoevalcap: pip install pycocoevalcap"
            )
        self.java = java
        self.constant = constant
        self.tokenization = tokenization
        self.wordnet = wordnet
        self.paraphrases = paraphrases
        # Sentences are stored as bytes, one JSON record per line, because only tensors are synced.
        self.add_state("records", default=[], dist_reduce_fx="cat")
        self.records: list[Tensor]

    def update(
        self,
        preds: Sequence[str],
        references: Sequence[Sequence[str]],
        ids: Sequence[str] | None = None,
        changed: Sequence[bool | None] | None = None,
    ) -> None:
        """Add segments.

        Args:
            preds: One generated caption per pair.
            references: One or more human captions per pair.
            ids: Names of the pairs; of several segments with the same name only one counts.
            changed: Whether anything changed between the two images of each pair; None if unknown.
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
                pred,
                list(sentences),
                None if changed is None or changed[index] is None else bool(changed[index]),
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
        stages = self._stages(records)
        with JavaMeteor() if self.java else nullcontext() as java:
            scores = self._scores([r[1] for r in records], [r[2] for r in records], stages, java)
            if changed := [record for record in records if record[3]]:
                preds, references = [r[1] for r in changed], [r[2] for r in changed]
                part = self._scores(preds, references, stages, java)
                scores |= {f"changed_{name}": part[name] for name in _parts(part)}
            if self.constant is not None:
                preds = [self._normalized(self.constant)] * len(records)
                floor = self._scores(preds, [r[2] for r in records], stages, java)
                scores |= {f"constant_{name}": floor[name] for name in _parts(floor)}
        if known := [record for record in records if record[3] is not None]:
            scores |= _change_accuracies(known)
        return scores

    def _distinct_records(self) -> list[Any]:
        """Return the records in a fixed order, so that sums do not depend on the ranks."""
        parts = self.records if isinstance(self.records, list) else [self.records]
        text = b"".join(part.cpu().numpy().tobytes() for part in parts).decode("ascii")
        kept: dict[Any, Any] = {}
        for number, line in enumerate(sorted(text.splitlines())):
            record = json.loads(line)
            record[1:3] = self._normalized(record[1]), [*map(self._normalized, record[2])]
            kept.setdefault(number if record[0] is None else record[0], record)
        return list(kept.values())

    def _normalized(self, sentence: str) -> str:
        return " ".join(caption_words(sentence, self.tokenization))

    def _stages(self, records: list[Any]) -> list[MatchStages]:
        """Return the stages of METEOR that are computed without Java, in rising order."""
        stages = [MatchStages(stems=False), MatchStages()]
        if self.wordnet is not None:
            stages.append(replace(stages[-1], synonyms=wordnet_synonyms(self.wordnet)))
        if self.paraphrases is not None:
            constant = [self._normalized(self.constant or "")]
            sentences = [text for record in records for text in (record[1], *record[2])]
            table = read_paraphrases(self.paraphrases, sentences + constant)
            stages.append(replace(stages[-1], paraphrases=table))
        return stages

    def _scores(
        self,
        preds: list[str],
        references: list[list[str]],
        stages: list[MatchStages],
        java: JavaMeteor | None,
    ) -> dict[str, Any]:
        scores: dict[str, Any] = {
            f"bleu_{n}": score for n, score in enumerate(bleu(preds, references), start=1)
        }
        scores["rouge_l"] = rouge_l(preds, references)
        scores["cider_d"] = cider_d(preds, references)
        meteors = {f"meteor_{one.name}": meteor(preds, references, stages=one)[0] for one in stages}
        if java is not None:
            meteors["meteor"] = java.score(preds, references)[0]
        used = list(meteors)[-1]
        four = scores["bleu_4"], meteors[used], scores["rouge_l"], scores["cider_d"]
        return scores | meteors | {"s_m": sum(four) / 4, "s_m_meteor": used}


def _parts(scores: dict[str, Any]) -> list[str]:
    return ["s_m", "bleu_4", scores["s_m_meteor"], "rouge_l", "cider_d"]


def _change_accuracies(records: list[Any]) -> dict[str, float]:
    nothing = {sentence for record in records if not record[3] for sentence in record[2]}
    # An empty caption states neither, and is wrong.
    exact = [record[1] not in nothing if record[1] else None for record in records]
    meant = [
        changed and not states_no_change(record[1])
        for changed, record in zip(exact, records, strict=True)
    ]
    flags = [record[3] for record in records]
    return {
        name: sum(map(operator.eq, stated, flags)) / len(flags)
        for name, stated in (("change_accuracy", meant), ("change_accuracy_exact", exact))
    }
