"""Pre-training of the tiny network on synthetic tiles ("stage 0"), without change captioning."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from lightning_plugins.assets.cache import cache_folder
from lightning_plugins.datamodules.change_captioning.change_sentences import captions_of
from lightning_plugins.datamodules.change_captioning.synthetic_tiles import (
    CLASSES,
    VERSION,
    tile_pair,
)
from lightning_plugins.datamodules.change_captioning.tile_scene import QUADRANTS, Scene
from lightning_plugins.litmodels.change_captioning.network import build_network
from lightning_plugins.litmodels.change_captioning.prompt import QUESTION, Prompt
from lightning_plugins.litmodels.change_captioning.sizes import SIZES
from lightning_plugins.litmodels.change_captioning.word_tokenizer import WORDS_FILE, WordTokenizer
from lightning_plugins.nn.random_state import seeded
from lightning_plugins.optimizers import WarmupCosine

_PART = 3
"""Part of the tiles' key; the data sets use the parts 0 to 2."""


@dataclass(frozen=True)
class Pretraining:
    """The length of stage 0. The key of the cached weights is derived from it.

    Args:
        num_pairs: Number of pairs of tiles; no data set contains them.
        vision_steps: Training steps of the vision tower, which predicts the share of each class
            (ground, road, tree, water, house) in each patch.
        answer_steps: Training steps of the whole network without a difference module, which
            predicts the objects in each quarter of both images, and captions without images. The
            network never sees a caption together with its images.
        batch_size: Pairs per step.
        seed: Seed of the tiles, the weights and the order.
    """

    num_pairs: int = 2000
    vision_steps: int = 200
    answer_steps: int = 400
    batch_size: int = 32
    seed: int = 0


def pretrained_on_tiles(cache: Path | None = None, plan: Pretraining | None = None) -> Path:
    """Return the folder of a pre-trained ``tiny`` network, and train it if necessary.

    The network replaces a published LLaVA-OneVision, which was pre-trained on images and text
    before it is trained on changes. The training takes a minute of one core.

    Args:
        cache: Folder that contains the pre-trained networks; None for the user's cache.
        plan: Length of the training; None for the default.

    Returns:
        A folder with ``model.safetensors`` and the words of the tokenizer.
    """
    plan = plan or Pretraining()
    cache = cache or cache_folder().parent / "change_captions"
    content = {"plan": asdict(plan), "size": asdict(SIZES["tiny"]), "tiles": VERSION, "version": 1}
    key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
    folder = cache / f"pretrained_tiny_{key}"
    if folder.is_dir():
        return folder
    rank_zero_info("pre-training the tiny network on tiles (once, about a minute)")
    cache.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=cache, prefix=".making_"))
    try:
        with seeded(plan.seed):
            _pretrain(work, plan)
        try:
            os.rename(work, folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process wrote it first
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def words_of(folder: Path) -> list[str]:
    """Return the words of a pre-trained network, in the order of their token ids."""
    return json.loads((folder / WORDS_FILE).read_text(encoding="utf-8"))


def _pretrain(folder: Path, plan: Pretraining) -> None:
    from safetensors.torch import save_file

    tiles = _Tiles.drawn(plan)
    texts = [QUESTION.replace("<image>", ""), *tiles.answers, *tiles.captions]
    words = WordTokenizer.learned(texts, SIZES["tiny"].text["vocab_size"])
    network = build_network("tiny", "none").train()
    _train_vision(network, tiles, plan)
    _train_answers(network, tiles, words, plan)
    save_file(dict(network.named_parameters()), folder / "model.safetensors")
    words.save(folder)


@dataclass(frozen=True)
class _Tiles:
    """Pairs of tiles with their targets; ``shares`` is ``(pairs, 2, patches, classes)``."""

    images: Tensor
    shares: Tensor
    answers: list[str]
    captions: list[str]

    @classmethod
    def drawn(cls, plan: Pretraining) -> "_Tiles":
        pairs = [tile_pair((plan.seed, _PART, number)) for number in range(plan.num_pairs)]
        patch = SIZES["tiny"].vision["patch_size"]
        return cls(
            images=torch.stack([_as_pixels(picture) for p in pairs for picture in p.pictures]).view(
                len(pairs), 2, 3, *pairs[0].labels[0].shape
            ),
            shares=torch.stack([_shares(one, patch) for p in pairs for one in p.labels]).unflatten(
                0, (-1, 2)
            ),
            answers=[" ".join(map(_contents, p.scenes)) for p in pairs],
            captions=[f"{caption}." for p in pairs for caption in captions_of(p.event)],
        )

    def pixels(self, pairs: Tensor) -> Tensor:
        """Return the images of the indexed pairs, in [-1, 1]."""
        return self.images[pairs].float() / 127.5 - 1


def _as_pixels(picture: Any) -> Tensor:
    return torch.from_numpy(picture).permute(2, 0, 1)


def _shares(labels: Any, patch: int) -> Tensor:
    """Return the share of each class in each patch, ``(patches, classes)``."""
    one_hot = nn.functional.one_hot(torch.from_numpy(labels).long(), len(CLASSES)).float()
    patches = one_hot.unfold(0, patch, patch).unfold(1, patch, patch)
    return patches.mean((-2, -1)).flatten(0, 1)


def _contents(scene: Scene) -> str:
    """Return the most frequent kind of object in each quarter of a tile, one word each."""
    counts = [{"house": 0, "trees": 0, "pond": 0} for _ in QUADRANTS]
    houses = ((house.row, house.column) for house in scene.houses)
    for name, cells in (("house", houses), ("trees", scene.trees), ("pond", scene.ponds)):
        for row, column in cells:
            counts[2 * (row // 2) + column // 2][name] += 1
    return " ".join(max(c, key=c.__getitem__) if any(c.values()) else "nothing" for c in counts)


def _train_vision(network: Any, tiles: _Tiles, plan: Pretraining) -> None:
    tower = network.model.vision_tower
    head = nn.Linear(network.config.vision_config.hidden_size, len(CLASSES))

    def loss(pairs: Tensor) -> Tensor:
        features = tower(tiles.pixels(pairs).flatten(0, 1), output_hidden_states=True)
        log_shares = head(features.hidden_states[-1]).log_softmax(-1)
        return -(tiles.shares[pairs].flatten(0, 1) * log_shares).sum(-1).mean()

    groups = [{"params": [*tower.parameters(), *head.parameters()], "lr": 3e-3}]
    _train(groups, loss, plan.vision_steps, plan)


def _train_answers(network: Any, tiles: _Tiles, words: WordTokenizer, plan: Pretraining) -> None:
    cpu = torch.device("cpu")
    image = SIZES["tiny"].image_token_id
    seeing, blind = Prompt(words, image, network.tokens_per_image), Prompt(words, image, 0)

    def loss(pairs: Tensor) -> Tensor:
        answers = seeing.with_answers([tiles.answers[i] for i in pairs.tolist()], cpu)
        drawn = torch.randint(len(tiles.captions), pairs.shape).tolist()
        captions = blind.with_answers([tiles.captions[i] for i in drawn], cpu)
        of_images = network(pixel_values=tiles.pixels(pairs), **answers).loss
        return of_images + network(**captions).loss

    tower = list(network.model.vision_tower.parameters())
    of_tower = set(tower)  # only for membership tests: its order is random
    rest = [parameter for parameter in network.parameters() if parameter not in of_tower]
    groups = [{"params": tower, "lr": 5e-4}, {"params": rest, "lr": 2e-3}]
    _train(groups, loss, plan.answer_steps, plan)


def _train(
    groups: Iterable[dict[str, Any]],
    loss: Callable[[Tensor], Tensor],
    steps: int,
    plan: Pretraining,
) -> None:
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    schedule = WarmupCosine(optimizer, max(1, steps), warmup=0.05, floor=0.0)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for _ in range(steps):
        optimizer.zero_grad()
        loss(torch.randint(plan.num_pairs, (plan.batch_size,))).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
