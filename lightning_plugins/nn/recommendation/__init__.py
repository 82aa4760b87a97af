"""Networks that predict a user's next item, and what is known of the items."""

from lightning_plugins.nn.recommendation.catalogue import Catalogue, Item
from lightning_plugins.nn.recommendation.gru4rec import GRU4Rec
from lightning_plugins.nn.recommendation.influential import InfluentialNetwork
from lightning_plugins.nn.recommendation.item_network import ItemNetwork
from lightning_plugins.nn.recommendation.sasrec import SASRec

__all__ = ["Catalogue", "GRU4Rec", "InfluentialNetwork", "Item", "ItemNetwork", "SASRec"]
