"""Record of a page of the app."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter


@dataclass(frozen=True, slots=True)
class Page:
    """Page of the app, or several pages that belong together.

    Args:
        title: Entry in the navigation.
        path: Address of the first page, such as `/runs`; addresses below it belong to the same entry.
        router: Its routes.
        in_navigation: Whether it has an entry.
    """

    title: str
    path: str
    router: APIRouter
    in_navigation: bool = True
