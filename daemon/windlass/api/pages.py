"""The OpenAPI page at ``/docs``, from files on this machine: it works without the internet."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse

_FILES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon.png": "image/png",
}


def _assets() -> Path | None:
    """The folder of Swagger UI's files, which the package ``fastapi-offline`` carries.

    Only its files are used, so it is looked up and never imported.
    """
    found = find_spec("fastapi_offline")
    if found is None or found.origin is None:
        return None
    folder = Path(found.origin).parent / "static"
    return folder if all((folder / name).is_file() for name in _FILES) else None


def install(app: FastAPI) -> None:
    """Serve ``/docs``. Without the assets, the page takes them from FastAPI's usual place."""
    assets = _assets()
    if assets is not None:

        @app.get("/docs/assets/{name}", include_in_schema=False)
        async def asset(name: str) -> FileResponse:
            if name not in _FILES:
                name = "favicon.png"
            return FileResponse(assets / name, media_type=_FILES[name])

    @app.get("/docs", include_in_schema=False)
    async def page() -> HTMLResponse:
        title, openapi = "Windlass API", "/openapi.json"
        if assets is None:
            return get_swagger_ui_html(openapi_url=openapi, title=title)
        return get_swagger_ui_html(
            openapi_url=openapi,
            title=title,
            swagger_js_url="/docs/assets/swagger-ui-bundle.js",
            swagger_css_url="/docs/assets/swagger-ui.css",
            swagger_favicon_url="/docs/assets/favicon.png",
        )
