#!/usr/bin/env python3
"""Counts test cases in a build event file of `bazel test`.

usage: test_results.py EVENTS.json EXIT_CODE

Prints, one per line: `passed N`, `failed N`, `failure WHAT` for each failure,
`note TEXT` for skipped cases. A target that did not build, crashed or timed out
is one failure. So is a build that failed outside any test (EXIT_CODE).
"""

import json
import sys
import urllib.parse
import xml.etree.ElementTree as ElementTree


def test_cases(uri):
    """Yields (name, outcome) of each test case in a test.xml."""
    path = urllib.parse.unquote(urllib.parse.urlparse(uri).path)
    for case in ElementTree.parse(path).iter("testcase"):
        name = "%s.%s" % (case.get("classname", ""), case.get("name", ""))
        if case.get("status") == "notrun":
            continue
        if case.find("failure") is not None or case.find("error") is not None:
            yield name, "failed"
        elif (case.get("result") == "skipped" or
              case.find("skipped") is not None):
            yield name, "skipped"
        else:
            yield name, "passed"


def main(events_path, exit_code):
    targets = set()   # labels of test targets
    status = {}       # label -> overall status
    reports = {}      # label -> test.xml files of the last attempts
    complete = False
    try:
        with open(events_path, encoding="utf-8") as events:
            lines = events.readlines()
    except OSError:
        lines = []
    for line in lines:
        event = json.loads(line)
        identity = event.get("id", {})
        if "configured" in event and event["configured"].get("testSize"):
            targets.add(identity["targetConfigured"]["label"])
        elif "testSummary" in event:
            status[identity["testSummary"]["label"]] = (
                event["testSummary"]["overallStatus"])
        elif "testResult" in event:
            key = identity["testResult"]
            for output in event["testResult"].get("testActionOutput", []):
                if output["name"] == "test.xml":
                    shard = (key.get("run", 1), key.get("shard", 1))
                    reports.setdefault(key["label"], {})[shard] = output["uri"]
        elif "finished" in event:
            complete = True

    passed = failed = 0
    for label in sorted(targets):
        outcome = status.get(label, "NO_STATUS")
        if outcome == "NO_STATUS" and exit_code in (0, 3):
            continue  # left out by a tag filter
        good = outcome in ("PASSED", "FLAKY")
        bad_cases = cases = 0
        for uri in reports.get(label, {}).values():
            try:
                for name, result in test_cases(uri):
                    if result == "skipped":
                        print("note skipped %s %s" % (label, name))
                        continue
                    cases += 1
                    if result == "passed":
                        passed += 1
                    else:
                        bad_cases += 1
                        print("failure %s %s" % (label, name))
            except (OSError, ElementTree.ParseError):
                pass  # a crash leaves no file or half of one
        failed += bad_cases
        if not good and bad_cases == 0:
            failed += 1
            print("failure %s %s" % (
                label, "did not build" if outcome == "NO_STATUS" else
                outcome.lower().replace("_", " ")))
        if good and cases == 0:
            print("note %s ran no test case" % label)

    if failed == 0 and (exit_code != 0 or not complete):
        failed = 1
        print("failure the build (bazel exited with %d)" % exit_code)
    print("passed %d" % passed)
    print("failed %d" % failed)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
