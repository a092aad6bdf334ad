"""A described dashboard as JSON that Grafana imports."""

import json

from description import VARIABLES

COLUMNS = 24
HEIGHT = 8
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


def panel_of(panel, number, x, y, width):
    return {
        "id": number,
        "type": "timeseries",
        "title": panel["title"],
        "description": panel.get("description", panel.get("empty", "")),
        "datasource": DATASOURCE,
        "gridPos": {"x": x, "y": y, "w": width, "h": HEIGHT},
        "fieldConfig": {
            "defaults": {"unit": panel["unit"], "min": 0,
                         "custom": {"fillOpacity": 10, "lineWidth": 1,
                                    "showPoints": "never"}},
            "overrides": [],
        },
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom",
                       "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {"refId": chr(ord("A") + i), "datasource": DATASOURCE,
             "expr": query["expr"], "legendFormat": query["legend"],
             "range": True}
            for i, query in enumerate(panel["queries"])
        ],
    }


def row_of(row, number, y):
    return {"id": number, "type": "row", "title": row["title"],
            "collapsed": False, "panels": [],
            "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1}}


def panels_of(described):
    """Rows from top to bottom, the panels of a row beside each other."""
    found, y = [], 0
    for row in described["rows"]:
        found.append(row_of(row, len(found) + 1, y))
        y += 1
        width = COLUMNS // len(row["panels"])
        for i, panel in enumerate(row["panels"]):
            found.append(panel_of(panel, len(found) + 1, i * width, y, width))
        y += HEIGHT
    return found


def variable_of(name):
    series, label = VARIABLES[name]
    query = f"label_values({series}, {label})"
    return {"name": name, "label": name, "type": "query",
            "datasource": DATASOURCE, "definition": query,
            "query": {"query": query, "refId": name},
            "refresh": 2, "sort": 1, "multi": True, "includeAll": True,
            "allValue": ".*", "current": {"text": "All", "value": "$__all"}}


def text_of(described):
    """The file for Grafana."""
    source = {"name": "datasource", "label": "data source",
              "type": "datasource", "query": "prometheus", "current": {}}
    link = {"title": "mmud", "type": "dashboards", "tags": ["mmud"],
            "asDropdown": False, "includeVars": True, "keepTime": True}
    return json.dumps({
        "uid": described["name"],
        "title": described["title"],
        "tags": ["mmud"],
        "schemaVersion": 38,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "links": [link],
        "templating": {"list": [source, *map(variable_of,
                                             described["variables"])]},
        "panels": panels_of(described),
    }, indent=1) + "\n"
