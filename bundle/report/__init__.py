"""What a registration looks like: a picture of three planes, and a page to look around in.

``overview`` draws ``overview.png``. ``report.html`` is made in two steps: ``page_content`` brings images, labels and
field onto one small grid (``volumes``); ``write_page`` puts them, the numbers and what ``judge`` says of them into the
page's template (``assets``). ``write_index`` makes the page of a batch, ``write_run_page`` that of a training or a
benchmark (in ``run``, since it reads what only those leave).
"""

from bundle.report.index import write_index
from bundle.report.judgement import judge, read_bounds
from bundle.report.overview import FOLDED, checkerboard, masked_jacobian, overview, scale
from bundle.report.page import fill_page, png, write_page
from bundle.report.volumes import PageContent, page_content

__all__ = [
    "FOLDED",
    "PageContent",
    "checkerboard",
    "fill_page",
    "judge",
    "masked_jacobian",
    "overview",
    "page_content",
    "png",
    "read_bounds",
    "scale",
    "write_index",
    "write_page",
]
