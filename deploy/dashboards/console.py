"""A described dashboard as a console template of Prometheus."""

import html
import json
import re

from description import UNITS, VARIABLES

# Four scrapes of the example configuration.
RATE_WINDOW = "1m"

HEAD = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>@TITLE@</title>
<link rel="stylesheet" href="{{ pathPrefix }}/classic/static/rickshaw/rickshaw.min.css">
<link rel="stylesheet" href="{{ pathPrefix }}/classic/static/css/prom_console.css">
<style>
body { font-family: sans-serif; margin: 1em 2em; background: #fff; color: #222; }
.row { display: flex; flex-wrap: wrap; gap: 1em; }
.row section { width: 430px; }
h2 { border-bottom: 1px solid #ccc; font-size: 1.1em; }
h3 { font-size: 0.9em; margin: 0.3em 0; }
.row p { color: #666; font-size: 0.8em; margin: 0.2em 0; }
.rickshaw_legend { background: #fff; color: #222; max-width: 350px; }
.rickshaw_legend .line { display: inline-block; }
nav a, form label { margin-right: 1em; }
</style>
<script>var PATH_PREFIX = "{{ pathPrefix }}";</script>
<script src="{{ pathPrefix }}/classic/static/jquery/jquery.min.js"></script>
<script src="{{ pathPrefix }}/classic/static/d3/d3.min.js"></script>
<script src="{{ pathPrefix }}/classic/static/rickshaw/rickshaw.min.js"></script>
<script src="{{ pathPrefix }}/classic/static/js/prom_console.js"></script>
<script>
// The choices of the form are in the address: ?instance=...&vm=...&minutes=...
var chosen = new URLSearchParams(location.search);
function graph(id, unit, queries) {
  function filled(expr) {
    return expr.replace(/\\$(\\w+)/g, function (all, name) {
      return JSON.stringify(chosen.get(name) || '.*').slice(1, -1);
    });
  }
  new PromConsole.Graph({
    node: document.getElementById(id),
    expr: queries.map(function (query) { return filled(query.expr); }),
    name: queries.map(function (query) { return query.legend; }),
    yAxisFormatter: function (y) {
      return y === 0 ? '0' : PromConsole.NumberFormatter.humanize(y);
    },
    duration: 60 * (Number(chosen.get('minutes')) || 60),
    yUnits: unit, min: 0, width: 350, height: 150
  });
}
</script>
</head>
<body>
<h1>@TITLE@</h1>
"""

SELECT = """<label>@NAME@
<select name="@NAME@"><option value="">all</option>
{{ range query "group by (@LABEL@) (@SERIES@)" | sortByLabel "@LABEL@" }}\
<option{{ if eq .Labels.@LABEL@ (or $.Params.@NAME@ "") }} selected{{ end }}>\
{{ .Labels.@LABEL@ }}</option>
{{ end }}</select></label>
"""

MINUTES = """<label>minutes
<input name="minutes" type="number" min="1" value="{{ or .Params.minutes "60" }}"></label>
<button>Show</button>
"""


def filled(template, **values):
    for name, value in values.items():
        template = template.replace(f"@{name.upper()}@", value)
    return template


def form_of(described):
    selects = [filled(SELECT, name=name, series=VARIABLES[name][0],
                      label=VARIABLES[name][1])
               for name in described["variables"]]
    return "<form>\n" + "".join(selects) + MINUTES + "</form>\n"


def query_of(query):
    return {"expr": query["expr"].replace("$__rate_interval", RATE_WINDOW),
            "legend": re.sub(r"\{\{(\w+)\}\}", r"[[ \1 ]]", query["legend"])}


def section_of(panel, name):
    """A panel: its place, and the call that draws into it."""
    note = panel.get("description") or panel.get("empty")
    described = f"<p>{html.escape(note)}</p>" if note else ""
    queries = json.dumps([query_of(query) for query in panel["queries"]])
    empty = ' data-empty="by design"' if "empty" in panel else ""
    return (f"<section><h3>{html.escape(panel['title'])}</h3>{described}"
            f'<div id="{name}" class="graph"{empty}></div>\n'
            f'<script>graph("{name}", "{UNITS[panel["unit"]]}", {queries});'
            "</script></section>\n")


def text_of(described, all_described):
    """The template. Its navigation leads to the consoles of all_described."""
    parts = [filled(HEAD, title=described["title"]), "<nav>"]
    parts += [f'<a href="{other["name"]}.html">{other["title"]}</a>'
              for other in all_described]
    parts += ["</nav>\n", form_of(described)]
    number = 0
    for row in described["rows"]:
        parts.append(f'<h2>{html.escape(row["title"])}</h2>\n'
                     '<div class="row">\n')
        for panel in row["panels"]:
            number += 1
            parts.append(section_of(panel, f"panel-{number}"))
        parts.append("</div>\n")
    return "".join(parts) + "</body>\n</html>\n"
