"""PAN registration: the Pyramid Attention Network as a MONAI bundle.

Reading order is the data flow: ``shapes``, ``fields``, ``ops``, ``networks``, ``losses`` and ``metrics`` hold the
mathematics; ``spatial``, ``io``, ``affine`` and ``transforms`` tie it to physical space; ``data`` and ``phantom`` feed
it; ``inferers`` and ``report`` bring it to a user's images; ``commands`` is the command line.
"""

__version__ = "0.1.0"
