"""The dashboards as they are described in the YAML files of this folder.

A description has a name, a title, variables and rows of panels. A panel has a
title, a unit of Grafana, queries with their legends, and perhaps a description.
`empty` says why a panel may show nothing. Queries and legends are written as in
Grafana: $instance, $vm, $__rate_interval, and {{label}}.
"""

import pathlib

import yaml

UNITS = {"short": "", "bytes": "B", "Bps": "B/s", "s": "s", "ops": "/s",
         "reqps": "/s", "percentunit": "ratio"}

# Where a variable finds its values: a series, and its label.
VARIABLES = {"instance": ("mmud_build_info", "instance"),
             "vm": ("mmud_dirty_pages_total", "vm")}

PANEL_KEYS = {"title", "unit", "queries", "description", "empty"}


def check(described):
    """Raises ValueError if a description is not well-formed."""
    for variable in described["variables"]:
        if variable not in VARIABLES:
            raise ValueError(f"{described['name']}: variable {variable} is "
                             f"none of {', '.join(VARIABLES)}")
    for row in described["rows"]:
        for panel in row["panels"]:
            where = f"{described['name']}: {panel.get('title')}"
            if unknown := set(panel) - PANEL_KEYS:
                raise ValueError(f"{where}: unknown keys {sorted(unknown)}")
            if panel["unit"] not in UNITS:
                raise ValueError(f"{where}: unit {panel['unit']} is none of "
                                 f"{', '.join(UNITS)}")


def read_all(folder):
    """All descriptions, in the order of their files."""
    found = []
    for path in sorted(pathlib.Path(folder).glob("*.yml")):
        found.append(yaml.safe_load(path.read_text()))
        check(found[-1])
    return found


def panels(described):
    return [panel for row in described["rows"] for panel in row["panels"]]
