"""The operations ``links`` and ``link`` of a node: what its outgoing links are set to, and changing that while it runs.

::

    {"op": "links"}
    {"op": "link", "link": "client->s1", "settings": {"loss": 0.1, "rate": null}, "partition": true, "restore": false}

``link`` is the name of a link direction, or a list of them. Settings are those of
:class:`fabric.link.settings.LinkSettings`, in its units or as texts (``"5ms"``); what is not named stays as it is.
``partition`` cuts or mends; ``restore`` first goes back to what the topology says, and mends. All of one request
happens at one instant or, if anything of it is wrong, not at all; what has changed is in the journal.
"""

import dataclasses
from typing import Any

from fabric.errors import UsageError
from fabric.journal import Journal
from fabric.link.changes import merged, shortened, suggestion
from fabric.link.model import LinkModel, LinkSettings
from fabric.live.driver import NodeDriver
from fabric.units import Instant


class LinkOperations:
    """See the module text."""

    def __init__(self, driver: NodeDriver, journal: Journal, node: str) -> None:
        self._driver = driver
        self._journal = journal
        self._node = node
        self._original = {name: model.settings for name, model in driver.links().items()}

    def list_all(self, _request: dict[str, Any]) -> dict[str, Any]:
        """Name -> {latency, ..., partition, original, dropped: {reason: frames}}."""
        return {
            name: _describe(model)
            | {"original": dataclasses.asdict(self._original[name]), "dropped": dict(model.statistics().dropped)}
            for name, model in self._driver.links().items()
        }

    def change(self, request: dict[str, Any]) -> dict[str, Any]:
        """Name -> {before, after}; UsageError says what is wrong with the request, and nothing has changed."""
        partition, restore = request.get("partition"), request.get("restore", False)
        changes = request.get("settings", {})
        if not (partition is None or isinstance(partition, bool)) or not isinstance(restore, bool):
            raise UsageError("link: partition and restore are true or false")
        if not isinstance(changes, dict):
            raise UsageError("link: settings is an object")
        models = self._driver.links()
        wanted = {
            name: merged(self._original[name] if restore else models[name].settings, changes)
            for name in self._names(request.get("link"))
        }  # all of it is looked at before any of it is done

        def apply(now: Instant) -> dict[str, Any]:
            return {name: self._change(name, settings, partition, restore, now) for name, settings in wanted.items()}

        return self._driver.command(apply)

    def _change(
        self, name: str, settings: LinkSettings, partition: bool | None, restore: bool, now: Instant
    ) -> dict[str, Any]:
        model = self._driver.links()[name]
        before = _describe(model)
        model.configure(settings, now)
        if restore or partition is not None:
            model.cut = bool(partition)
        after = _describe(model)
        if after != before:
            self._journal.record(now, self._node, "link.changed", link=name, before=before, after=after)
        return {"before": before, "after": after}

    def _names(self, given: object) -> list[str]:
        names = [given] if isinstance(given, str) else given
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise UsageError("link: expected the name of a link direction such as client->s1, or a list of names")
        known = self._driver.links()
        for name in names:
            if name not in known:
                raise UsageError(f"link: {shortened(name)!r} does not begin at {self._node}; {suggestion(name, known)}")
        return names


def _describe(model: LinkModel) -> dict[str, Any]:
    return {**dataclasses.asdict(model.settings), "partition": model.cut}
