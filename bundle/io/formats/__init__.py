"""The forms of a transform that other tools read and write, one module a tool; each states its convention once.

A module's ``read…`` functions return T as this package has it: points in mm, LPS, from fixed to moving. Its ``write…``
functions take that. ``bundle.io.transforms`` is the door to the readers, ``bundle.io.export`` the one to the writers;
what ITK, ANTs and Slicer share is in ``bundle.io.itk`` and ``bundle.io.displacement``.
"""
