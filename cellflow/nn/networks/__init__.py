"""The networks that cellflow can train and use: one file each, and this table of them.

To add one, write a subclass of `Network` in a file of its own here and put it into the table.
"""

from cellflow.nn.networks.network import Network
from cellflow.nn.networks.unet import UNet

__all__ = ["DEFAULT", "NETWORKS", "Network", "UNet"]

NETWORKS: dict[str, type[Network]] = {network.kind: network for network in (UNet,)}
"""Networks by the kind that model files name in their facts."""
DEFAULT: type[Network] = UNet
"""The network of a training that starts from no model file."""
