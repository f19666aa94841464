"""Templates and files of the pages. All text that is not ours goes through `shown`, and what it says is only read."""

import hashlib
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from surefoot.report.style import STYLE
from surefoot.report.svg import plain, shown

_TYPES = {"css": "text/css", "js": "text/javascript"}


def _read_files() -> dict[str, bytes]:
    """The files that are served, by name. What is not in here cannot be asked for."""
    folder = resources.files("surefoot.web") / "static"
    files = {file.name: file.read_bytes() for file in folder.iterdir() if file.name.endswith((".css", ".js"))}
    return files | {"pages.css": STYLE.encode() + files["pages.css"]}


_FILES = _read_files()
_TEMPLATES = Environment(
    loader=PackageLoader("surefoot.web"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters["shown"] = lambda text: Markup(shown(text))
_TEMPLATES.filters["plain"] = lambda text: Markup(plain(text))  # for attributes and titles
_TEMPLATES.globals["file"] = lambda name: f"/static/{name}?{hashlib.sha256(_FILES[name]).hexdigest()[:8]}"


def page(template: str, status: int = 200, **values: Any) -> Response:
    """A template with its values as an answer."""
    return HTMLResponse(_TEMPLATES.get_template(template).render(**values), status)


def _file(asked: Request) -> Response:
    name = asked.path_params["name"]
    if name not in _FILES:
        raise HTTPException(404)
    kind = _TYPES[name.rpartition(".")[2]]
    return Response(_FILES[name], media_type=kind, headers={"cache-control": "private, max-age=86400"})


def _alive(_asked: Request) -> Response:
    return Response(status_code=204)


def site(*routes: Route) -> Starlette:
    """An application with these pages, and what every server of pages answers. One address is one page."""
    made = Starlette(routes=[*routes, Route("/static/{name}", _file), Route("/healthz", _alive)])
    made.router.redirect_slashes = False
    return made
