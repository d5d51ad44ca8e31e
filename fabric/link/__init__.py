"""Links: how one direction of a link delays and loses frames."""

from fabric.link.impairments import Drop, Impairment, Verdict
from fabric.link.model import FrameDropped, LinkModel, LinkStatistics
from fabric.link.settings import LinkSettings

__all__ = ["Drop", "FrameDropped", "Impairment", "LinkModel", "LinkSettings", "LinkStatistics", "Verdict"]
