"""Tables and figures of a page."""

import base64
import html
import io
from collections.abc import Sequence

from matplotlib.figure import Figure

__all__ = ["draw", "figure", "section", "table"]

KINDS = {b"\x89PNG": "image/png", b"GIF8": "image/gif", b"\xff\xd8\xff": "image/jpeg"}


def section(title: str, *parts: str) -> str:
    """Put parts under a heading."""
    return "\n".join([f"<section>\n<h2>{html.escape(title)}</h2>", *parts, "</section>"])


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table; the first cell of each row is its heading."""
    head = "".join(f'<th scope="col">{html.escape(column)}</th>' for column in columns)
    body = "\n".join(f"<tr>{_row(cells)}</tr>" for cells in rows)
    return f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'


def _row(cells: Sequence[str]) -> str:
    first, *rest = (html.escape(cell) for cell in cells)
    return f'<th scope="row">{first}</th>' + "".join(f"<td>{cell}</td>" for cell in rest)


def figure(picture: bytes, alternative: str) -> str:
    """Show a PNG, GIF or JPEG that is kept in the page.

    Args:
        picture: the file's content.
        alternative: what it shows, for those who do not see it, and below it.
    """
    kind = next((kind for start, kind in KINDS.items() if picture.startswith(start)), "image/png")
    address = f"data:{kind};base64,{base64.b64encode(picture).decode()}"
    words = html.escape(alternative)
    return f'<figure><img src="{address}" alt="{words}"><figcaption>{words}</figcaption></figure>'


def draw(drawing: Figure) -> bytes:
    """Encode a drawing as PNG."""
    file = io.BytesIO()
    drawing.savefig(file, format="png", dpi=110)
    return file.getvalue()
