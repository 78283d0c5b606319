"""Pieces of an HTML page that needs no other file: sections, pictures, tables."""

import base64
import html
import os
from io import BytesIO

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto;
       padding: 0 1rem; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-top: 1px solid #ccc;
       padding-top: 1.5rem; }
img { max-width: 100%; display: block; margin: 1rem auto; }
table { border-collapse: collapse; font-size: 0.85rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.15rem 0.6rem; text-align: right; border-bottom: 1px solid #eee; }
th { text-align: left; } .scroll { overflow-x: auto; } .wrong { color: #b3430a; }
summary { cursor: pointer; color: #555; } nav a { margin-right: 1rem; white-space: nowrap; }
.note { color: #555; font-size: 0.9rem; }
@media print { nav { display: none; } h2 { break-before: page; } }
"""


def section(anchor, heading, text, display, frame):
    return (
        f"<h2 id='{anchor}'>{heading}</h2><p>{html.escape(text)}</p>"
        f"{picture(display, heading)}{table('numbers', frame)}"
    )


def picture(display, description):
    """The figure of a Display as part of the page."""
    import matplotlib.pyplot as plt

    buffer = BytesIO()
    display.figure_.savefig(buffer, format="png", dpi=110)
    plt.close(display.figure_)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{html.escape(description)}" src="data:image/png;base64,{data}">'


def table(summary, frame):
    return f"<details><summary>{summary}</summary>{scrolled(frame)}</details>"


def scrolled(frame):
    rows = frame.to_html(border=0, float_format="{:.4g}".format)
    return f"<div class='scroll'>{rows}</div>"


def page(title, body):
    return (
        "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width'>"
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body>{body}</body></html>\n"
    )


def write(path, text):
    """Replace the file once all is written, so that nobody ever reads half a page."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
