"""Pages of the app: one record per page, in the order of the navigation."""

from __future__ import annotations

from sightline.serve.local_app import data_page, label_page, pictures, runs_page, start_page, try_page
from sightline.serve.local_app.page import Page

PAGES: tuple[Page, ...] = (
    start_page.PAGE,
    runs_page.PAGE,
    data_page.PAGE,
    label_page.PAGE,
    try_page.PAGE,
    pictures.PAGE,
)
