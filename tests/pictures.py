"""Pictures of the documents: the compiled graphs as SVG, the report as PNG.

python -m tests.pictures graphs node_modules/mermaid/dist/mermaid.min.js
python -m tests.pictures report runs/.../evaluate/evaluation/report.html

Both need a Chromium on the PATH, the first one Mermaid as well (`npm install mermaid`). The results
are committed: GitHub and the site show them without a script. `tests/test_docs.py` compares the
boxes and arrows of the graphs with the compiled pipeline.
"""

import argparse
import html
import json
import re
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

from pipelines.documents import FULL, spec_of
from pipelines.graph import mermaid
from pipelines.parameters import Variant
from pipelines.sources import ROOT

IMAGES = ROOT / "docs/images"
# The graph that a plain run has, and one with everything that can be compiled in.
GRAPHS = {
    "pipeline": Variant(),
    "pipeline-full": FULL,
}
_REPORT_SIZE = (1100, 1020)  # pixels of the report's top that are shown
_PAGE = """<!doctype html><meta charset="utf-8"><pre id="out"></pre><script src="{script}"></script>
<script>
mermaid.initialize({{startOnLoad: false, theme: "neutral", deterministicIds: true,
  htmlLabels: false, flowchart: {{htmlLabels: false, padding: 12}},
  fontFamily: "Helvetica, Arial, sans-serif"}});
mermaid.render("{name}", {source}).then(
  drawn => {{ out.textContent = "<<<" + drawn.svg + ">>>"; }},
  error => {{ out.textContent = "error: " + error; }});
</script>"""


def main() -> None:
    """Draw what the command line names."""
    parser = argparse.ArgumentParser(prog="python -m tests.pictures", description=__doc__)
    parser.add_argument("what", choices=("graphs", "report"))
    parser.add_argument("source", type=Path, help="mermaid.min.js, or a report.html")
    parsed = parser.parse_args()

    IMAGES.mkdir(exist_ok=True)
    if parsed.what == "report":
        draw_report(parsed.source, IMAGES / "report.png")
        return
    for name, variant in GRAPHS.items():
        drawn = draw_graph(mermaid(spec_of(variant)), name, parsed.source)
        (IMAGES / f"{name}.svg").write_text(drawn, encoding="utf-8")


def draw_graph(source: str, name: str, script: Path) -> str:
    """Return Mermaid's SVG of `source`, on white, so that it is readable on a dark page too."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        page.write_text(
            _PAGE.format(script=script.resolve().as_uri(), name=name, source=json.dumps(source))
        )
        document = _chromium("--virtual-time-budget=20000", "--dump-dom", page.as_uri())

    found = re.search(r"&lt;&lt;&lt;(.*)&gt;&gt;&gt;", document, re.DOTALL)
    if found is None:
        raise SystemExit(f"Mermaid drew nothing: {document[-500:]}")
    return html.unescape(found[1]).replace("max-width:", "background: white; max-width:", 1) + "\n"


def draw_report(report: Path, picture: Path) -> None:
    """Write the top of a report as a PNG of at most 128 colours, which halves its size."""
    width, height = _REPORT_SIZE
    _chromium(
        "--hide-scrollbars",
        f"--window-size={width},{height}",
        f"--screenshot={picture}",
        report.resolve().as_uri(),
    )
    with Image.open(picture) as image:
        image.convert("RGB").quantize(128).save(picture, optimize=True)


def _chromium(*arguments: str) -> str:
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", *arguments]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return finished.stdout


if __name__ == "__main__":
    main()
