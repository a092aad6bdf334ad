#!/usr/bin/python3
"""mmuctl compare with the real daemon: what holds on every machine."""

import json
import os
import re
import signal
import subprocess
import unittest
import urllib.request
import xml.etree.ElementTree

from daemon import MMUCTL, Daemon

MEMORY = 16 << 20
PAGES = MEMORY // 4096
HUGE_PAGES = MEMORY // (2 << 20)
SMALL = ["--memory", "16MiB"]


def counts(splits):
    """(2M, 1G) of a SplitCounts."""
    return splits["split_2m_count"], splits["split_1g_count"]


def splits_by_trigger(daemon):
    """2M mappings that the daemon's TDP MMU has split, as /metrics says."""
    ports = (daemon.folder / "ports").read_text()
    port = re.search(r"metrics[^0-9]*([0-9]+)", ports).group(1)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as reply:
        text = reply.read().decode()
    found = {}
    for labels, value in re.findall(
            r"^mmud_huge_page_splits_total\{(.*?)\} ([0-9]+)", text, re.M):
        labels = dict(re.findall(r'(\w+)="(\w+)"', labels))
        if labels["from"] == "2m" and labels["mmu"] == "tdp":
            found[labels["trigger"]] = int(value)
    return found


class CompareTest(unittest.TestCase):

    def compare(self, daemon, *words):
        """The document of a comparison, which must leave no VM behind."""
        document = json.loads(daemon.must("--json", "compare", *words))
        self.assert_no_vms(daemon)
        return document

    def assert_no_vms(self, daemon):
        self.assertEqual(json.loads(daemon.must("--json", "vm", "list"))["vms"],
                         [])

    def rows(self, document):
        return {row["policy"]: row for row in document["results"]}

    def test_each_policy_splits_huge_pages_in_its_way_only(self):
        with Daemon() as daemon:
            rows = self.rows(self.compare(daemon, *SMALL))
            splits = splits_by_trigger(daemon)
        self.assertEqual(list(rows), ["lazy", "eager", "throttled"])
        for row in rows.values():
            self.assertEqual(row["huge_pages"]["before"]["pages_2m_count"],
                             HUGE_PAGES)
            self.assertEqual(row["huge_pages"]["after"]["pages_2m_count"], 0)
        lazy = rows["lazy"]["huge_pages"]
        self.assertIsNone(lazy["split_ahead"])
        self.assertEqual(counts(lazy["split_at_enable"]), (0, 0))
        self.assertEqual(counts(lazy["split_by_faults"]), (HUGE_PAGES, 0))
        eager = rows["eager"]["huge_pages"]
        self.assertIsNone(eager["split_ahead"])
        self.assertEqual(counts(eager["split_at_enable"]), (HUGE_PAGES, 0))
        self.assertEqual(counts(eager["split_by_faults"]), (0, 0))
        throttled = rows["throttled"]["huge_pages"]
        self.assertEqual(counts(throttled["split_ahead"]), (HUGE_PAGES, 0))
        self.assertEqual(counts(throttled["split_at_enable"]), (0, 0))
        self.assertEqual(counts(throttled["split_by_faults"]), (0, 0))
        # The daemon counts by trigger, for all VMs together.
        self.assertEqual(splits, {"fault": HUGE_PAGES, "eager": HUGE_PAGES,
                                  "request": HUGE_PAGES})

    def test_all_that_the_guest_writes_ends_up_dirty(self):
        with Daemon() as daemon:
            for mmu in ("tdp", "tdp-shadow", "stage2"):
                document = self.compare(daemon, "--mmu", mmu, *SMALL,
                                        "--vcpus", "1,3")
                self.assertEqual(len(document["results"]), 6)
                for row in document["results"]:
                    self.assertFalse(row["dirty"]["limit_reached"])
                    self.assertEqual(row["dirty"]["page_count"], PAGES, row)
                    self.assertIs(row["dirty"]["all_written"], True, row)

    def test_a_guest_that_also_reads_makes_only_its_written_pages_dirty(self):
        with Daemon() as daemon:
            document = self.compare(daemon, *SMALL, "--write-fraction", "0.1",
                                    "--vcpus", "2")
        writes = set()
        for row in document["results"]:
            dirty = row["dirty"]
            self.assertIs(dirty["all_written"], True, row)
            self.assertGreaterEqual(dirty["page_count"], dirty["write_count"])
            self.assertLessEqual(
                dirty["page_count"],
                dirty["write_count"] + dirty["earlier_page_count"])
            self.assertLess(dirty["write_count"], PAGES / 5)
            writes.add(dirty["write_count"])
        # The policies ran the same guest.
        self.assertEqual(len(writes), 1, document)

    def test_repeated_runs_give_the_one_in_the_middle(self):
        with Daemon() as daemon:
            document = self.compare(daemon, *SMALL, "--policy", "eager",
                                    "--repeat", "3")
        self.assertEqual(document["repeat_count"], 3)
        dirty = document["results"][0]["dirty"]
        times = [float(time.rstrip("s")) for time in dirty["running_times"]]
        self.assertEqual(times, sorted(times))
        self.assertEqual(len(times), 3)
        self.assertEqual(dirty["running_time"], dirty["running_times"][1])

    def test_the_throttled_split_reports_its_pace(self):
        with Daemon() as daemon:
            document = self.compare(daemon, *SMALL, "--policy", "throttled",
                                    "--max-pages-per-second", "20000")
        self.assertEqual(document["throttle"]["max_pages_per_second"], 20000)
        split = document["results"][0]["split_ahead"]
        self.assertEqual(split["page_count"], PAGES)
        self.assertGreater(split["pages_per_second"], 0)
        # The first of the chunks needs no wait.
        self.assertLessEqual(split["pages_per_second"],
                             20000 * HUGE_PAGES / (HUGE_PAGES - 1))
        self.assertNotEqual(split["throttled"]["rate"], "0s")

    def test_every_kind_of_mmu_can_be_compared(self):
        with Daemon() as daemon:
            for mmu in ("shadow", "nested"):
                document = self.compare(daemon, "--mmu", mmu, "--memory",
                                        "32MiB")
                self.assertEqual(document["mmu"], mmu)
                for row in document["results"]:
                    self.assertGreater(
                        row["huge_pages"]["before"]["pages_2m_count"], 0)
                    self.assertGreater(row["dirty"]["page_count"], 0)
                    # The guest's own work on its tables hides these.
                    self.assertIsNone(row["huge_pages"]["split_by_faults"])
                    self.assertIsNone(row["dirty"]["all_written"])

    def test_on_stage_2_a_split_ahead_spares_the_guest_the_faults_of_reads(self):
        with Daemon() as daemon:
            rows = self.rows(self.compare(daemon, "--mmu", "stage2", *SMALL,
                                          "--write-fraction", "0.1"))
        for row in rows.values():
            self.assertEqual(row["huge_pages"]["before"]["pages_2m_count"],
                             HUGE_PAGES)
            self.assertEqual(row["huge_pages"]["after"]["pages_2m_count"], 0)
            self.assertIs(row["dirty"]["all_written"], True, row)
            # Each block is broken once, by one policy or another.
            self.assertGreaterEqual(row["tlbi_count"], HUGE_PAGES)
        lazy = rows["lazy"]
        self.assertEqual(counts(lazy["huge_pages"]["split_by_faults"]),
                         (HUGE_PAGES, 0))
        # The first write to a block leaves the guest a page of it, and each
        # other access faults, reads too.
        self.assertGreater(lazy["faults"]["fixed_count"], PAGES / 2)
        for policy in ("eager", "throttled"):
            row = rows[policy]
            self.assertEqual(counts(row["huge_pages"]["split_by_faults"]),
                             (0, 0))
            self.assertLess(row["faults"]["fixed_count"], PAGES / 5)
            self.assertEqual(row["stalls"]["time_by_cause"]["split"], "0s")

    def test_on_stage_2_every_combination_is_run_and_pays_for_its_blocks(self):
        with Daemon() as daemon:
            document = self.compare(daemon, "--mmu", "stage2", *SMALL,
                                    "--vcpus", "1,4",
                                    "--write-fraction", "1.0,0.1")
        rows = {(row["vcpu_count"], row["write_fraction"], row["policy"]): row
                for row in document["results"]}
        guests = [(vcpus, writes) for vcpus in (1, 4) for writes in (1.0, 0.1)]
        self.assertEqual(list(rows), [
            (*guest, policy) for guest in guests
            for policy in ("lazy", "eager", "throttled")])
        for row in rows.values():
            # Each block is broken once, which takes an invalidation of stage 2
            # and one of stage 1.
            self.assertGreaterEqual(row["tlbi_count"], 2 * HUGE_PAGES)
            self.assertEqual(row["huge_pages"]["after"]["pages_2m_count"], 0)
            self.assertIs(row["dirty"]["all_written"], True, row)
        for guest in guests:
            lazy, eager = (rows[(*guest, policy)]
                           for policy in ("lazy", "eager"))
            self.assertEqual(counts(lazy["huge_pages"]["split_by_faults"]),
                             (HUGE_PAGES, 0), guest)
            faults = {policy: row["faults"]["fixed_count"]
                      for policy, row in (("lazy", lazy), ("eager", eager))}
            if guest[1] == 1.0:
                # The first write to each page faults under either policy.
                for count in faults.values():
                    self.assertGreaterEqual(count, PAGES, guest)
            else:
                # With the blocks split ahead, only writes fault.
                self.assertLess(faults["eager"], faults["lazy"], guest)
                self.assertGreater(faults["lazy"], PAGES / 2, guest)

    def test_the_page_is_a_file_with_the_numbers_of_the_tables(self):
        with Daemon() as daemon:
            path = daemon.folder / "compare.html"
            text = daemon.must("compare", *SMALL, "--html", str(path))
            page = xml.etree.ElementTree.fromstring(path.read_text())
        self.assertIn(str(path), text)
        rows = [[cell.text for cell in row] for row in page.iter("tr")]
        times, work = [table.splitlines() for table in text.split("\n\n")[1:3]]
        printed = [re.split(" {2,}", line.strip()) for line in times + work]
        self.assertEqual(rows, printed)
        self.assertEqual(len(list(page.iter("svg"))), 4)

    def test_errors_are_found_before_a_guest_runs(self):
        lines = {
            "--policy lazy,fast": (2, r"--policy: 'fast' is not one of "
                                      r"eager\|lazy\|throttled"),
            "--mmu tpd": (2, "--mmu: 'tpd' is not one of"),
            "--vcpus 0": (2, "--vcpus is 0: .*; give 1 or more"),
            "--vcpus two": (2, "not a number"),
            "--memory 256GiB --vcpus 100000": (3, "--vcpus is 100000: a VM of this daemon has "
                                  "at most [0-9]+ vCPUs; give at most"),
            "--memory 2MiB --vcpus 2": (2, "--memory is 2 MiB: .* at least 4 "
                                           "MiB, or fewer --vcpus"),
            "--memory 1024TiB": (9, "--memory is .* left .*; give less"),
            "--html /nonexistent/f": (2, "--html: '/nonexistent/f' cannot be "
                                         "written: No such file or directory; "
                                         "give a file"),
            "--address unix:/nonexistent/s --timeout 1s":
                (6, "fix: .*start mmud|unix:/nonexistent/s"),
        }
        with Daemon() as daemon:
            for line, (code, message) in lines.items():
                result = daemon.run("compare", *line.split())
                self.assertEqual(result.returncode, code,
                                 f"{line}\n{result.stderr}")
                self.assertEqual(result.stdout, "")
                self.assertRegex(" ".join(result.stderr.split()), message)
            self.assert_no_vms(daemon)

    def test_a_vm_with_the_name_of_one_of_them_is_left_alone(self):
        with Daemon() as daemon:
            daemon.must("vm", "create", "compare-tdp-eager-2")
            result = daemon.run("compare", *SMALL)
            self.assertEqual(result.returncode, 5, result.stderr)
            self.assertIn("vms/compare-tdp-eager-2 exists", result.stderr)
            self.assertIn("--name", result.stderr)
            names = [vm["name"] for vm in json.loads(
                daemon.must("--json", "vm", "list"))["vms"]]
            self.assertEqual(names, ["vms/compare-tdp-eager-2"])
            daemon.must("compare", *SMALL, "--policy", "eager", "--name", "b")

    def test_a_step_that_takes_too_long_ends_and_leaves_no_vm(self):
        with Daemon() as daemon:
            result = daemon.run("compare", *SMALL, "--policy", "throttled",
                                "--max-pages-per-second", "1", "--time-limit",
                                "1s")
            self.assertEqual(result.returncode, 7, result.stderr)
            self.assertRegex(result.stderr, "splitting ahead .* has not ended "
                             "within 1.00 s; give a longer --time-limit")
            self.assert_no_vms(daemon)

    def test_a_signal_ends_it_and_its_vm_is_deleted(self):
        slow = ["--policy", "throttled", "--max-pages-per-second", "1"]
        for number, options in ((signal.SIGINT, []),
                                (signal.SIGTERM, ["--json"]),
                                (signal.SIGHUP, ["--quiet"])):
            with Daemon() as daemon:
                process = subprocess.Popen(
                    [MMUCTL, *options, "compare", *SMALL, *slow],
                    env=daemon.environment(), stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE, text=True,
                    # Python's subprocesses may be started with SIGHUP ignored.
                    preexec_fn=lambda: signal.signal(signal.SIGHUP,
                                                     signal.SIG_DFL))
                # The guest's split runs, and would run for an hour.
                while not json.loads(daemon.must(
                        "--json", "op", "list", "--running"))["operations"]:
                    self.assertIsNone(process.poll())
                os.kill(process.pid, number)
                out, err = process.communicate(timeout=100)
                self.assertEqual(process.returncode, 128 + number, err)
                self.assertEqual(out, "")
                self.assertIn("interrupted", err)
                self.assert_no_vms(daemon)

    def test_progress_goes_to_standard_error_unless_it_is_unwanted(self):
        with Daemon() as daemon:
            words = ["compare", *SMALL, "--policy", "lazy"]
            result = daemon.run(*words)
            self.assertRegex(result.stderr, r"compare +[0-9]+%.*1 of 1: 1 vCPU, "
                             r"100% writes, lazy: ")
            self.assertNotIn("%  1 of 1", result.stdout)
            self.assertEqual(daemon.run("--quiet", *words).stderr, "")
            self.assertEqual(daemon.run("--json", *words).stderr, "")


if __name__ == "__main__":
    unittest.main()
