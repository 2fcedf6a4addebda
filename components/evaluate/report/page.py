"""What is a report's HTML made of? One document without scripts or links, and the few parts that
fill it.

Text arguments are plain and escaped here; arguments named `html` or `rows_html` are trusted markup.
Light and dark follow the reader's system, and wide tables scroll inside their own box.
"""

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np
import numpy.typing as npt

# The page loads nothing: even markup that slipped through could neither run nor call out.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_STYLE = """
:root{color-scheme:light dark;--bg:#fbfbfa;--card:#fff;--fg:#1d2126;--soft:#5b6470;--line:#dfe2e6;--head:#eef0f2;
--positive:#c05a0a;--negative:#2a6fc4;--bad:#b3261e;--heat:42,111,196;
--series-0:#2a6fc4;--series-1:#c05a0a;--series-2:#2e8540;--series-3:#8a4bb5}
@media(prefers-color-scheme:dark){
:root{--bg:#121518;--card:#1a1e23;--fg:#e8ebee;--soft:#a0a9b4;--line:#333a42;--head:#232930;
--positive:#ff9f55;--negative:#74b0ff;--bad:#ff8a80;--heat:116,176,255;
--series-0:#74b0ff;--series-1:#ff9f55;--series-2:#7ccf8a;--series-3:#cf9bf2}
}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--bg);color:var(--fg);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1080px;margin:0 auto;padding:2rem 1.25rem 4rem}
h1{font-size:1.75rem;line-height:1.2;margin:.1rem 0 .5rem;letter-spacing:-.01em}
h2{font-size:1.2rem;margin:2.6rem 0 .8rem}
h3{font-size:.95rem;margin:1.2rem 0 .6rem}
.tile h3{margin:0}
p{margin:.3rem 0;max-width:46rem;overflow-wrap:anywhere}
.soft,figcaption,small{color:var(--soft)}
.eyebrow{font-size:.8rem;letter-spacing:.08em;text-transform:uppercase;color:var(--soft)}
.cards{display:grid;grid-template-columns:repeat(4,1fr);gap:.9rem;margin:1.6rem 0 0}
.card,.tile,.scroll{background:var(--card);border:1px solid var(--line);border-radius:10px}
.card{padding:.9rem 1rem}
.card dt{color:var(--soft);font-size:.9rem}
.card dd{margin:0}
.card .big{font-size:2rem;line-height:1.25;font-weight:650;font-variant-numeric:tabular-nums}
.scroll{overflow-x:auto;position:relative}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
caption{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
th,td{text-align:left;padding:.42rem .9rem;border-top:1px solid var(--line);white-space:nowrap}
.prose{display:block;white-space:normal;width:44ch}
thead th,.part th{background:var(--head);font-size:.85rem;color:var(--soft);font-weight:600}
tbody th{font-weight:500}
.part th,.matrix th{white-space:normal}
.matrix{margin:.9rem 0 .7rem;table-layout:fixed}
.matrix th{padding:.4rem .3rem;overflow-wrap:anywhere;background:none;border:0;color:var(--soft);font-size:.85rem}
.matrix td{text-align:center;padding:1.1rem .3rem;border:3px solid var(--card);border-radius:8px}
.matrix thead th{text-align:center}
.matrix td b{display:block;font-size:1.5rem;line-height:1.2}
.matrix td small{color:inherit}
.way{color:var(--soft);font-weight:400}
.track{display:inline-block;position:relative;width:9rem;height:.5rem;border-radius:4px;background:var(--head)}
.track i{position:absolute;top:0;bottom:0;border-radius:4px;background:var(--series-0);opacity:.45}
.track b{position:absolute;top:-.15rem;width:.2rem;height:.8rem;margin-left:-.1rem;border-radius:2px;
background:var(--series-0)}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,300px),1fr));gap:.9rem}
figure{margin:0;min-width:0}
.tile{padding:.9rem 1rem}
.tile svg{display:block;width:100%;height:auto;margin:.5rem 0 .3rem}
svg text{font-family:inherit!important}
figcaption{font-size:.88rem;line-height:1.4;overflow-wrap:anywhere}
.key{margin-right:.9rem;color:var(--fg)}
.key i{display:inline-block;width:.7rem;height:.7rem;border-radius:2px;margin-right:.35rem}
.gallery{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,190px),1fr));gap:.9rem}
.gallery img{display:block;width:100%;height:auto;aspect-ratio:1;border-radius:6px;margin-bottom:.6rem}
.gallery .said{color:var(--fg)}
.tag{font-weight:650;color:var(--bad)}
code{font:.85em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
.read{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,300px),1fr));gap:.2rem 2rem;margin:0}
.read dt{font-weight:600;margin-top:.7rem}
.read dd{margin:0;color:var(--soft)}
@media(max-width:760px){
.cards{grid-template-columns:repeat(2,1fr)}
main{padding:1.25rem .9rem 3rem}
.card .big{font-size:1.6rem}
.track{width:5rem}
th,td{padding:.42rem .55rem}
tbody th{white-space:normal;min-width:7rem}
.gallery{grid-template-columns:repeat(2,1fr)}
}
@media print{.card,.tile,.scroll,figure{break-inside:avoid}}
"""


def document(title: str, html: str) -> str:
    """The whole file: `html` under an escaped `title`."""
    head = (
        '<meta charset="utf-8"><meta http-equiv="Content-Security-Policy"'
        f' content="{escape(_POLICY)}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
    )
    return (
        "<!doctype html>\n<html"
        f' lang="en"><head>{head}</head>\n<body><main>\n{html}\n</main></body></html>\n'
    )


def section(title: str, html: str, note: str = "") -> str:
    """A heading, an optional soft sentence, and content."""
    return f"<section><h2>{escape(title)}</h2>{paragraph(note)}{html}</section>\n"


def paragraph(text: str) -> str:
    """A soft paragraph, or nothing where the text is empty."""
    return f'<p class="soft">{escape(text)}</p>' if text else ""


def table(caption: str, head: Sequence[str], rows_html: Iterable[str]) -> str:
    """A captioned table in a box that scrolls by itself, also by keyboard."""
    columns = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{columns}</tr></thead>"
        f"<tbody>{''.join(rows_html)}</tbody></table></div>"
    )


def row(head: str, cells_html: Iterable[str]) -> str:
    """A table row with a row heading."""
    return (
        f'<tr><th scope="row">{escape(head)}</th>'
        + "".join(f"<td>{cell}</td>" for cell in cells_html)
        + "</tr>"
    )


def matrix(caption: str, names: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """Counts by truth (rows) and answer (columns) of the same names, shaded by their share of the
    row.
    """
    rows = ""
    for name, line in zip(names, counts, strict=True):
        total = max(sum(line), 1)
        rows += (
            f'<tr><th scope="row">is {escape(name)}</th>'
            + "".join(_shaded(cell, cell / total) for cell in line)
            + "</tr>"
        )
    head = "".join(f'<th scope="col">answered {escape(name)}</th>' for name in names)
    return (
        "<table"
        f' class="matrix"><caption>{escape(caption)}</caption><thead><tr><td></td>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )


def _shaded(count: int, share: float) -> str:
    shade = f"background:rgba(var(--heat),{0.06 + 0.4 * share:.3f})"
    return f'<td style="{shade}"><b>{count}</b><small>{100 * share:.1f} %</small></td>'


def part(title: str, n_columns: int) -> str:
    """A heading inside a table, over all columns."""
    return f'<tr class="part"><th scope="colgroup" colspan="{n_columns}">{escape(title)}</th></tr>'


def tile(title: str, html: str, note: str, key: Sequence[tuple[str, str]] = ()) -> str:
    """A titled figure; `key` names colours by CSS variable."""
    names = "".join(
        f'<span class="key"><i style="background:var({variable})"></i>{escape(name)}</span>'
        for variable, name in key
    )
    return (
        f'<figure class="tile"><h3>{escape(title)}</h3>{html}'
        f"<figcaption>{names}{'<br>' if names else ''}{escape(note)}</figcaption></figure>\n"
    )


def track(low: float, value: float, high: float) -> str:
    """An interval and its value on a line from 0 to 1."""
    left, middle, right = (100 * min(max(position, 0.0), 1.0) for position in (low, value, high))
    return (
        '<span class="track" aria-hidden="true"><i'
        f' style="left:{left:.1f}%;width:{right - left:.1f}%"></i><b'
        f' style="left:{middle:.1f}%"></b></span>'
    )


def picture(image: npt.NDArray[np.uint8], alt: str) -> str:
    """An inline JPEG of (S, S, 3) uint8, at most 224 pixels wide."""
    from PIL import Image

    thumbnail, buffer = Image.fromarray(image), io.BytesIO()
    thumbnail.thumbnail((224, 224))
    thumbnail.save(buffer, format="JPEG", quality=80)
    data = base64.b64encode(buffer.getvalue()).decode()
    size = f'width="{thumbnail.width}" height="{thumbnail.height}"'
    return f'<img alt="{escape(alt)}" {size} src="data:image/jpeg;base64,{data}">'


def measured(value: float | None, interval_95: tuple[float, float] | None) -> str:
    """A value and beside it, smaller, its interval; three decimals, "none" for what does not
    exist.
    """
    if value is None:
        return "none"
    bounds = "none" if interval_95 is None else f"{interval_95[0]:.3f} to {interval_95[1]:.3f}"
    return f"<b>{value:.3f}</b> <small>{bounds}</small>"
