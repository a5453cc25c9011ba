"""Pages for people who come with a browser: where to begin, and the documentation. They load nothing."""

from __future__ import annotations

import re
from base64 import b64encode
from functools import cache, partial
from hashlib import sha256
from html import escape
from itertools import pairwise
from pathlib import Path
from posixpath import normpath
from typing import Final

from fastapi import FastAPI
from markdown_it import MarkdownIt
from starlette.requests import Request
from starlette.responses import HTMLResponse

from app import __version__
from app.api.docs import PAGE as DOCS
from app.core.constants import API_PREFIX, DEMO_NAME
from app.core.errors import NotFound

TUTORIAL: Final = f"{DOCS}/tutorial"
_FOLDER: Final = Path(__file__).resolve().parents[3] / "docs"
_FILES: Final = {f"{DOCS}/{file.stem}": file for file in sorted(_FOLDER.glob("*.md"))}
_REFERENCE: Final = {
    f"{DOCS}/{file.relative_to(_FOLDER).with_suffix('').as_posix()}": file
    for file in sorted(_FOLDER.glob("reference/**/*.md"))
}
_PAGES: Final = {**_FILES, **_REFERENCE}
_FOLDER_OF_REFERENCE: Final = f"{DOCS}/reference"
_REFERENCE_ROUTE: Final = f"{_FOLDER_OF_REFERENCE}/{{page:path}}"
PATHS: Final = (*_FILES, _REFERENCE_ROUTE)
"""Where this installation has them: the pages of the folder `docs`, each under the name of its file.

Those of the reference, of which there are many, share one route.
"""

_STYLE: Final = """
:root { color-scheme: light dark; }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 46rem; margin: 2.5rem auto; padding: 0 1rem; }
h1, h2 { line-height: 1.2; }
code, pre { font: 14px/1.45 ui-monospace, monospace; }
pre { padding: .8rem 1rem; overflow-x: auto; border: 1px solid #8886; border-radius: 6px; }
a { color: #4a6fa5; }
th, td { text-align: left; padding: .2rem .8rem .2rem 0; }
"""
_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "img-src 'self'",
        f"style-src 'sha256-{b64encode(sha256(_STYLE.encode()).digest()).decode()}'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""
_START: Final = """<h1>Orrery</h1>
<p>Version {version} is running here.
<a href="{root}/health/ready">It is</a> <strong>{status}</strong>.</p>
{links}
<h2>First call</h2>
<p>With an API key: the first start prints one, <code>orrery keys create</code> makes another.</p>
<pre><code>export ORRERY_URL={url} ORRERY_API_KEY=…
curl -H "Authorization: Bearer $ORRERY_API_KEY" "$ORRERY_URL{api}/auth/me"</code></pre>
<h2>Next steps</h2>
<p>On the machine that serves this, in a second terminal:</p>
<pre><code>. backend/.venv/bin/activate
orrery demo       # sample documents, the agent “{demo}”, three cited answers
orrery ask "What is the per diem for a full day in Oslo?"
orrery ingest PATH… --collection documents
orrery doctor     # where something does not work</code></pre>
"""


def start_page(*, url: str, root: str, status: str, documented: bool) -> HTMLResponse:
    """What `/` shows. `url` is how others reach this server, `root` the path that a proxy puts before it."""
    links = []
    if documented:
        links.append(f'<li><a href="{escape(root)}{DOCS}">API documentation</a>: try each call here</li>')
        if tutorial_page():
            links.append(f'<li><a href="{escape(root)}{TUTORIAL}">Tutorial</a>: the first 15 minutes</li>')
        links.append(f'<li><a href="{escape(root)}/openapi.json">OpenAPI 3.1</a>: for generated clients</li>')
    body = _START.format(
        version=escape(__version__),
        status=escape(status),
        root=escape(root),
        url=escape(url),
        api=API_PREFIX,
        demo=DEMO_NAME,
        links="\n".join(["<ul>", *links, "</ul>"]) if links else "",
    )
    return _page("Orrery", body)


def tutorial_page() -> str | None:
    """The path of the tutorial, where this installation has it."""
    return TUTORIAL if TUTORIAL in PATHS else None


def install_pages(app: FastAPI) -> None:
    """Adds the pages, for everybody, as the API's description is."""
    for path in _FILES:
        app.add_route(path, partial(_show, path), methods=["GET"], include_in_schema=False)
    app.add_route(_REFERENCE_ROUTE, _show_reference, methods=["GET"], include_in_schema=False)


async def _show(path: str, _: Request) -> HTMLResponse:
    return _page(*_rendered(path))


async def _show_reference(request: Request) -> HTMLResponse:
    path = f"{_FOLDER_OF_REFERENCE}/{request.path_params['page']}"
    if path not in _REFERENCE:
        raise NotFound(f"There is no page {path!r}.")
    return _page(*_rendered(path))


@cache
def _rendered(path: str) -> tuple[str, str]:
    """Title and HTML of a page. HTML inside of it is shown as text; links to files lead to their pages."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(_PAGES[path].read_text(encoding="utf-8"))
    for token in (inner for outer in tokens for inner in outer.children or ()):
        place, hash_mark, part = str(token.attrGet("href") or "").partition("#")
        page = normpath(f"{path}/../{place.removesuffix('.md')}")
        if page in _PAGES and place.endswith(".md"):
            token.attrSet("href", f"{place.removesuffix('.md')}{hash_mark}{part}")
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open":
            opening.attrSet("id", _anchor(inline.content))
    heading = next(token.content for token in tokens if token.type == "inline")
    return f"Orrery: {heading}", str(markdown.renderer.render(tokens, markdown.options, {}))


def _anchor(heading: str) -> str:
    """What links to a heading say after `#`, as forges of code have it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _page(title: str, body: str) -> HTMLResponse:
    headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"}
    return HTMLResponse(_PAGE.format(title=escape(title), style=_STYLE, body=body), headers=headers)
