#!/usr/bin/python3
"""The dashboards: made from their descriptions, and as Grafana wants them."""

import json
import pathlib
import re
import runpy
import unittest

# A test runs in the root of its runfiles.
ROOT = pathlib.Path.cwd()
DEPLOY = ROOT / "deploy"
BOARDS = ["mmud-daemon", "mmud-host", "mmud-migration"]
METRIC = re.compile(r"\b((?:mmud|grpc_server|process)_\w+)\b")


def boards():
    return {path.stem: json.loads(path.read_text())
            for path in sorted((DEPLOY / "grafana").glob("*.json"))}


def charts(board):
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def cells(panel):
    """The squares of the grid that a panel covers."""
    at = panel["gridPos"]
    return {(x, y) for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])}


class DashboardsTest(unittest.TestCase):

    def test_files_are_what_the_descriptions_make(self):
        made = runpy.run_path(str(DEPLOY / "dashboards/generate"))["files"]()
        self.assertEqual(sorted(boards()), BOARDS)
        self.assertEqual(len(made), 2 * len(BOARDS))
        for name, text in made.items():
            self.assertEqual((DEPLOY / name).read_text(), text,
                             f"{name}: run deploy/dashboards/generate")

    def test_ids_are_unique(self):
        found = boards()
        self.assertEqual([board["uid"] for board in found.values()], BOARDS)
        for name, board in found.items():
            ids = [panel["id"] for panel in board["panels"]]
            self.assertEqual(len(set(ids)), len(ids), name)
            for panel in charts(board):
                refs = [target["refId"] for target in panel["targets"]]
                self.assertEqual(len(set(refs)), len(refs), panel["title"])

    def test_panels_lie_in_the_grid_and_beside_each_other(self):
        for name, board in boards().items():
            taken = set()
            for panel in board["panels"]:
                covered = cells(panel)
                self.assertEqual(covered & taken, set(), panel["title"])
                self.assertLess(max(x for x, _ in covered), 24, name)
                taken |= covered

    def test_each_panel_has_queries_a_unit_and_the_data_source(self):
        for name, board in boards().items():
            variables = {one["name"] for one in board["templating"]["list"]}
            self.assertIn("datasource", variables)
            self.assertGreater(len(charts(board)), 8, name)
            for panel in charts(board):
                title = f"{name}: {panel['title']}"
                self.assertEqual(panel["datasource"]["uid"], "${datasource}")
                self.assertTrue(panel["fieldConfig"]["defaults"]["unit"], title)
                self.assertTrue(panel["targets"], title)
                for target in panel["targets"]:
                    self.assertTrue(target["legendFormat"], title)
                    used = set(re.findall(r"\$(\w+)", target["expr"]))
                    self.assertLessEqual(
                        used, variables | {"__rate_interval"}, title)
                    self.assertIn("instance", used, title)

    def test_queries_name_documented_metrics_and_recorded_series(self):
        documented = (ROOT / "docs/metrics.md").read_text()
        rules = (DEPLOY / "prometheus/rules/recording.yml").read_text()
        seen = 0
        for board in boards().values():
            for panel in charts(board):
                for target in panel["targets"]:
                    for name in re.findall(r"\b\w+:\w+:\w+", target["expr"]):
                        self.assertIn(f"record: {name}\n", rules)
                    plain = re.sub(r"\b\w+:\w+:\w+|\"[^\"]*\"", "",
                                   target["expr"])
                    for name in METRIC.findall(plain):
                        base = re.sub(r"_(bucket|sum|count)$", "", name)
                        self.assertIn(f"`{base}`", documented)
                        seen += 1
        self.assertGreater(seen, 30)


if __name__ == "__main__":
    unittest.main()
