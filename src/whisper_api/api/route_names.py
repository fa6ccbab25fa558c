"""Names for metrics, logs and spans: the pattern of a request's route, never its path."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.routing import BaseRoute, Match
from starlette.types import Scope

UNKNOWN = "other"
"""Stands for every path that is no route."""


class RouteNames:
    """The patterns of an application's routes."""

    def __init__(self, routes: Iterable[BaseRoute]) -> None:
        """``routes`` in the order in which they are tried."""
        self._routes = tuple(routes)

    def __call__(self, scope: Scope) -> str:
        """The pattern; ``UNKNOWN`` where there is none.

        A request that was refused by a guard was never routed: its route is looked for here.
        """
        routed: str | None = getattr(scope.get("route"), "path", None)
        if routed is not None:
            return routed
        # A mount that was entered has moved its prefix from the path to the root.
        root = scope.get("app_root_path", scope.get("root_path", ""))
        scope, other_method = {**scope, "root_path": root}, UNKNOWN
        for route in self._routes:
            match, path = route.matches(scope)[0], getattr(route, "path", UNKNOWN)
            if match is Match.FULL:
                return path
            if match is Match.PARTIAL and other_method == UNKNOWN:
                other_method = path
        return other_method
