"""The JSON Schema of topology files, for editors that check while one types: built from the same tables and patterns as
the validation in :mod:`fabric.topology.yaml_model`.

A schema cannot say everything (that endpoints exist, that hosts have one link each, that addresses differ): what it
accepts may still be refused by ``sanloom validate``, what it refuses always is.
"""

from typing import Any

from fabric.topology.applications import APPLICATIONS_MAX
from fabric.topology.checker import NAME
from fabric.topology.spec import RESTARTS, SOCKETS_MAX, SOCKETS_PER_PROCESS_MAX
from fabric.topology.yaml_model import NODES_MAX

SCHEMA_ID = "https://json-schema.org/draft/2020-12/schema"
_DURATION = r"^\s*\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)\s*(ns|us|ms|s|m|min|h)\s*$|^\s*0\s*$"
_RATE = (
    r"^\s*\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)\s*"
    r"([KMGTkmgt]?[Bb][Ii][Tt]|[KMGkmg][Ii][Bb][Ii][Tt]|[KMGkmg]?[Bb][Pp][Ss])\s*$"
)
_RATIO = r"^\s*\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)\s*%?\s*$"


def topology_schema() -> dict[str, Any]:
    """The schema as plain values."""
    settings = {
        "latency": {"$ref": "#/$defs/duration", "description": "One-way delay of the link, for example 2ms."},
        "jitter": {"$ref": "#/$defs/duration", "description": "Spread of the delay; never reorders frames."},
        "loss": {"$ref": "#/$defs/ratio", "description": "Share of the frames that are lost, for example 0.5%."},
        "rate": {"type": "string", "pattern": _RATE, "description": "Bits per second as in tc, for example 10Gbit."},
        "queue": {"type": "integer", "minimum": 0, "description": "Frames that may wait; more are dropped."},
    }
    one_way = {"type": ["object", "null"], "additionalProperties": False, "properties": settings}
    name = {"type": "string", "pattern": NAME.pattern.replace(r"\Z", "$")}
    return {
        "$schema": SCHEMA_ID,
        "title": "Sanloom topology",
        "type": "object",
        "additionalProperties": False,
        "required": ["name", "hosts", "links"],
        "properties": {
            "name": name,
            "seed": {"type": "integer", "minimum": 0, "description": "Seed of all random draws of the links."},
            "defaults": {
                "type": ["object", "null"],
                "additionalProperties": False,
                "properties": {"link": {"$ref": "#/$defs/settings"}},
            },
            "hosts": {
                "type": "object",
                "minProperties": 1,
                "maxProperties": NODES_MAX,
                "propertyNames": name,
                "additionalProperties": {
                    "type": ["object", "null"],
                    "additionalProperties": False,
                    "properties": {
                        "ip": {"type": "string", "format": "ipv4"},
                        "sockets": {
                            "type": "integer",
                            "minimum": 1,
                            "maximum": SOCKETS_MAX,
                            "description": "How many sockets all processes of the host may have together.",
                        },
                        "sockets-per-process": {
                            "type": "integer",
                            "minimum": 1,
                            "maximum": SOCKETS_PER_PROCESS_MAX,
                            "description": "How many sockets one process may have; then WSAEMFILE.",
                        },
                        "applications": {
                            "type": ["object", "null"],
                            "maxProperties": APPLICATIONS_MAX,
                            "propertyNames": name,
                            "additionalProperties": {"$ref": "#/$defs/application"},
                        },
                    },
                },
            },
            "network-switches": {
                "type": ["object", "null"],
                "maxProperties": NODES_MAX,
                "propertyNames": name,
                "additionalProperties": {"type": ["object", "null"], "additionalProperties": False},
            },
            "links": {
                "type": "array",
                "items": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["endpoints"],
                    "properties": {
                        "endpoints": {"type": "array", "items": name, "minItems": 2, "maxItems": 2},
                        **settings,
                        "forward": {"$ref": "#/$defs/settings"},
                        "reverse": {"$ref": "#/$defs/settings"},
                    },
                },
            },
        },
        "$defs": {
            "settings": one_way,
            "application": {
                "type": "object",
                "additionalProperties": False,
                "required": ["command"],
                "properties": {
                    "command": {
                        "type": ["array", "string"],
                        "items": {"type": ["string", "number", "boolean"]},
                        "minItems": 1,
                        "description": "Program and arguments; one text is split as a shell would.",
                    },
                    "environment": {
                        "type": ["object", "null"],
                        "additionalProperties": {"type": ["string", "number", "boolean"]},
                        "description": "Variables; SANLOOM_AGENT is always set.",
                    },
                    "after": {
                        "type": "array",
                        "items": {"type": "string"},
                        "description": "HOST.APPLICATION: started before this one.",
                    },
                    "restart": {"enum": list(RESTARTS), "description": "never unless given."},
                },
            },
            "duration": {"type": ["string", "integer"], "pattern": _DURATION, "maximum": 0, "minimum": 0},
            "ratio": {"type": ["string", "number"], "pattern": _RATIO, "minimum": 0, "maximum": 1},
        },
    }
