"""The control socket of a node: what ``sanloom ps`` and ``sanloom capture`` ask (:mod:`~nodes.control.client`), and
what a node answers (:mod:`~nodes.control.server`).
"""
