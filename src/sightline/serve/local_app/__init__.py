"""Local web app over a folder of runs: `sightline open`.

The app keeps no state of its own: what it shows is read from run folders and catalogs, what a person decides is appended to a
decisions file (`runs.decisions`), and runs are separate processes. So two tabs, or a restart, lose nothing.

How to add a page
-----------------
1. Write a module `NAME_page.py` with a router and a record::

       router = APIRouter()

       @router.get("/data")
       def data(request: Request, workspace: CurrentWorkspace) -> Response:
           return render(request, "data.html.j2", title="Data", rows=…)

       PAGE = Page("Data", "/data", router)

   and add `NAME_page.PAGE` to `PAGES` in `pages.py`; its order is that of the navigation. `Page(…, in_navigation=False)`
   adds a router without an entry.
2. Handlers are plain `def` functions: they run in a thread, so they may read files. `CurrentWorkspace` (from `workspace.py`)
   is the folder of runs: `workspace.folder`, `workspace.run_folders()`, `workspace.catalogs()` (id → file),
   `workspace.catalog(id)` (an opened catalog, read again when its file changes; 404 if there is none), `workspace.cache`,
   `workspace.decisions_file(id)`.
3. Templates lie in `templates/` and extend `app.html.j2` (blocks `content`, `scripts`). Macros of the report are there too:
   `{% from "parts.html.j2" import card, plot %}`. `{{ name | short(60) }}` shortens a text and makes it harmless.
4. Style: the report's style sheet, then `static/app.css`. Use their classes (`section`, `.margin`, `.wide`, `.ladder`,
   `.gallery`, `.card`, `.tools`, `.alarms`, `.badge`, `.facts`); the content security policy allows no inline style and no
   inline script. Files of `static/` are served as `/static/FILE`.
5. Forms post with `method="post"` and contain `{{ csrf_field() }}`. Scripts use `sightline.post(url, values)` of `app.js`,
   which sends the token as a header, and returns the JSON answer or throws its `error`. A handler of a POST reads `await
   request.form()` or `Form()` parameters; the token is checked before it runs. Answer a form with `go(url)` (303), a script
   with JSON.
6. Photographs: `picture_url(catalog_id, path, side_px)` in templates, or `pictures.url` in Python, is the address of an image
   of an opened catalog, by an id that depends on its path. It is decoded, turned upright, reduced and encoded again, without
   EXIF.
7. Errors: raise `RequestError` (422), `NotFoundError` (404) or `decisions.StaleError` (409); a page or a JSON object is made
   of them, whichever the browser wants. Never let a damaged file of a user become another exception.
8. Decisions: `decisions.append(workspace.decisions_file(id), [Decision(…)], seen=…, catalog=…)`; `seen` is the version that
   the page was made with.
9. Tests: `tests/serve/local_app/conftest.py` has `app_client`, a client with a session; `tests/browser` drives Chromium.
"""

from sightline.serve.local_app.application import create_app
from sightline.serve.local_app.server import open_app

__all__ = ["create_app", "open_app"]
