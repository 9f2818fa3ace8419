"""Choosing a pair of stacks that are headers alone, and three such stacks."""

import pytest
from header_stacks import ROOT, stack
from panreg.failures import Failure
from panreg.pairing.choice import choose_pair
from panreg.settings import PairSettings

SETTINGS = PairSettings(min_slices=4)


def choose(*stacks, root=ROOT, **settings):
    return choose_pair(stacks, SETTINGS.model_copy(update=settings), root)


def refused(*stacks, **settings):
    with pytest.raises(Failure) as info:
        choose(*stacks, **settings)
    return info.value


CURRENT = stack("current", study="one", date="20240110", number=3)
PRIOR = stack("prior", study="two", date="20230105", number=4)
THIRD = stack("third", study="one", date="20240110", number=5)
