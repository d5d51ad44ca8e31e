"""The operations ``links`` and ``link`` of a node: what its outgoing links are set to, and changing that while it runs.

::

    {"op": "links"}
    {"op": "link", "link": "client->s1", "settings": {"loss": 0.1, "rate": null}, "partition": true, "restore": false}

Settings are those of :class:`fabric.link.settings.LinkSettings`, in its units; what is not named stays as it is.
``partition`` cuts or mends this direction; ``restore`` first goes back to what the topology says, and mends it. All of
one request happens at one instant, and is in the journal.
"""

import dataclasses
import difflib
from typing import Any

from fabric.errors import UsageError
from fabric.journal import Journal
from fabric.link.model import LinkModel, LinkSettings
from fabric.live.driver import NodeDriver
from fabric.units import Instant

SETTINGS = tuple(field.name for field in dataclasses.fields(LinkSettings))


class LinkOperations:
    """See the module text."""

    def __init__(self, driver: NodeDriver, journal: Journal, node: str) -> None:
        self._driver = driver
        self._journal = journal
        self._node = node
        self._original = {name: model.settings for name, model in driver.links().items()}

    def list_all(self, _request: dict[str, Any]) -> dict[str, Any]:
        """Name -> {settings, original, partition}."""
        return {
            name: _describe(model) | {"original": dataclasses.asdict(self._original[name])}
            for name, model in self._driver.links().items()
        }

    def change(self, request: dict[str, Any]) -> dict[str, Any]:
        """{before, after}; UsageError says what is wrong with the request, and nothing has changed."""
        links = self._driver.links()
        name = request.get("link")
        if not isinstance(name, str) or name not in links:
            raise UsageError(f"link: {name!r} does not begin at {self._node}; there are {', '.join(links)}")
        model = links[name]
        partition, restore = request.get("partition"), request.get("restore", False)
        if partition not in (None, True, False) or restore not in (True, False):
            raise UsageError("link: partition and restore are true or false")
        settings = _merge(self._original[name] if restore else model.settings, request.get("settings", {}))
        before = _describe(model)

        def apply(now: Instant) -> dict[str, Any]:
            model.configure(settings, now)
            if restore or partition is not None:
                model.cut = bool(partition)
            after = _describe(model)
            if after != before:
                self._journal.record(now, self._node, "link.changed", link=name, before=before, after=after)
            return {"before": before, "after": after}

        return self._driver.command(apply)


def _merge(settings: LinkSettings, changes: object) -> LinkSettings:
    if not isinstance(changes, dict):
        raise UsageError("link: settings is an object")
    for key, value in changes.items():
        if key not in SETTINGS:
            close = difflib.get_close_matches(str(key), SETTINGS, 1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(SETTINGS)}"
            raise UsageError(f"link: there is no setting {key!r}; {hint}")
        wanted = "a number" + (" or null" if key == "rate" else "")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number and not (key == "rate" and value is None):
            raise UsageError(f"link: {key} is {value!r}; expected {wanted}")
        if key != "loss" and isinstance(value, float):
            raise UsageError(f"link: {key} is {value!r}; expected a whole number")
    try:
        return dataclasses.replace(settings, **changes)
    except ValueError as error:
        raise UsageError(f"link: {error}") from None


def _describe(model: LinkModel) -> dict[str, Any]:
    return {**dataclasses.asdict(model.settings), "partition": model.cut}
