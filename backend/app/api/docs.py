"""The page of documentation: Swagger UI, all of it from this server, so that it works without internet.

The package `fastapi-offline` carries the files of Swagger UI (Apache-2.0); its code is not used.
"""

from __future__ import annotations

from functools import partial
from importlib.metadata import distribution
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import FileResponse, Response

PAGE: Final = "/docs"
_FILES: Final = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}
_FOLDER: Final = Path(str(distribution("fastapi-offline").locate_file("fastapi_offline/static")))

_HTML: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Orrery API</title>
<link rel="icon" href="docs/icon.svg">
<link rel="stylesheet" href="docs/swagger-ui.css">
<script defer src="docs/swagger-ui-bundle.js"></script>
<script defer src="docs/start.js"></script>
</head>
<body>
<div id="swagger-ui"></div>
<noscript>This page needs JavaScript; <a href="openapi.json">openapi.json</a> does not.</noscript>
</body>
</html>
"""
"""Its links are relative: a proxy may put a path before them."""

# Without a validator's URL, Swagger UI asks one on the internet whether the description is valid.
_START: Final = """SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  layout: "BaseLayout",
  validatorUrl: null,
});
"""

_ICON: Final = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32" fill="none" stroke="#4a6fa5">
<circle cx="16" cy="16" r="13" stroke-width="2"/><circle cx="16" cy="16" r="7" stroke-width="2"/>
<circle cx="16" cy="16" r="3" fill="#e0a030" stroke="none"/><circle cx="29" cy="16" r="3" fill="#4a6fa5"/>
</svg>
"""

_TEXTS: Final = {
    PAGE: (_HTML, "text/html"),
    f"{PAGE}/start.js": (_START, "text/javascript"),
    f"{PAGE}/icon.svg": (_ICON, "image/svg+xml"),
}
PATHS: Final = (*_TEXTS, *(f"{PAGE}/{name}" for name in _FILES))

_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "connect-src 'self'",
        "img-src 'self' data:",  # Swagger UI's style sheet holds its icons
        "script-src 'self'",
        "style-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS: Final = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"}


def install_docs(app: FastAPI) -> None:
    """Adds the page and its files, for everybody, as the description itself is."""
    app.docs_url = PAGE
    for path in PATHS:
        app.add_route(path, partial(_answer, path), methods=["GET"], include_in_schema=False)


async def _answer(path: str, _: Request) -> Response:
    if path in _TEXTS:
        text, kind = _TEXTS[path]
        return Response(text, media_type=kind, headers=_HEADERS)
    name = path.rpartition("/")[2]
    return FileResponse(_FOLDER / name, media_type=_FILES[name], headers=_HEADERS)
