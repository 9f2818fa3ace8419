"""Networks that the configs can name."""

from bundle.networks.pan import PAN

__all__ = ["PAN"]
