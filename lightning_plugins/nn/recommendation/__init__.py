"""Networks that predict a user's next item, and the catalogue of items."""

from lightning_plugins.nn.recommendation.catalogue import Catalogue, Item
from lightning_plugins.nn.recommendation.gru4rec import GRU4Rec
from lightning_plugins.nn.recommendation.influential_network import InfluentialNetwork
from lightning_plugins.nn.recommendation.item_network import ItemNetwork
from lightning_plugins.nn.recommendation.sasrec import SASRec

__all__ = ["Catalogue", "GRU4Rec", "InfluentialNetwork", "Item", "ItemNetwork", "SASRec"]
