#!/usr/bin/python3
"""mmuctl dirty-log against the real daemon: leases, tokens and what fails."""

import json
import unittest

from daemon import Daemon


class DirtyLogTest(unittest.TestCase):

    def log(self, daemon):
        return json.loads(
            daemon.must("--json", "dirty-log", "get", "a"))["dirty_log"]

    def error(self, daemon, *words):
        result = daemon.run("--json", *words)
        self.assertEqual(result.stdout, "")
        return json.loads(result.stderr)["error"]

    def test_acquire_of_the_owner_keeps_lease_and_name(self):
        with Daemon() as daemon:
            daemon.must("vm", "create", "a", "--memory", "4MiB")
            daemon.must("dirty-log", "start", "a", "--owner", "me", "--lease",
                        "5m")
            text = daemon.must("dirty-log", "acquire", "a")
            self.assertIn("the log was yours already", text)
            self.assertEqual(self.log(daemon)["lease"], "300s")
            self.assertEqual(self.log(daemon)["owner"], "me")
            daemon.must("dirty-log", "acquire", "a", "--lease", "2m")
            self.assertEqual(self.log(daemon)["lease"], "120s")

    def test_a_slot_that_cannot_be_harvested_has_the_error_of_the_daemon(self):
        with Daemon() as daemon:
            daemon.must("vm", "create", "a", "--memslot", "0:0+4MiB",
                        "1:1GiB+4MiB")
            daemon.must("dirty-log", "start", "a", "0", "--initially-set")
            error = self.error(daemon, "dirty-log", "harvest", "a", "99")
            self.assertEqual(error["reason"], "MEMSLOT_NOT_FOUND")
            self.assertEqual(error["exit_code"], 4)
            self.assertEqual(error["fix"],
                             "see its memslots: mmuctl vm get VM")
            error = self.error(daemon, "dirty-log", "harvest", "a", "1")
            self.assertEqual(error["reason"], "DIRTY_LOG_OFF")
            self.assertEqual(error["exit_code"], 5)
            self.assertIn("mmuctl dirty-log get VM", error["fix"])
            # Neither has taken anything.
            self.assertEqual(self.log(daemon)["epochs_in_flight"], [])

    def test_a_harvest_acknowledges_no_page_that_an_earlier_one_took(self):
        with Daemon() as daemon:
            daemon.must("vm", "create", "a", "--memslot", "0:0+4MiB",
                        "1:1GiB+4MiB")
            daemon.must("dirty-log", "start", "a", "--initially-set")
            daemon.must("dirty-log", "harvest", "a", "0")
            harvest = json.loads(daemon.must(
                "--json", "dirty-log", "harvest", "a", "1", "--ack",
                "--clear-range", "1MiB"))
            self.assertEqual(harvest["page_count"], 1024)
            self.assertEqual(harvest["acknowledged_page_count"], 1024)
            self.assertIs(harvest["acknowledged"], True)
            slots = self.log(daemon)["slots"]
            self.assertEqual([slot["in_flight_page_count"] for slot in slots],
                             [1024, 0])

    def test_the_token_of_a_vm_that_was_made_again_is_forgotten(self):
        with Daemon() as daemon:
            daemon.must("vm", "create", "a", "--memory", "4MiB")
            daemon.must("dirty-log", "start", "a", "--owner", "first")
            first, = (daemon.folder / "mmuctl").iterdir()
            token = first.read_bytes()
            daemon.must("vm", "delete", "a")
            daemon.must("vm", "create", "a", "--memory", "4MiB")
            # Somebody else's log, whose token is not kept here.
            first.unlink()
            daemon.must("dirty-log", "start", "a", "--owner", "second")
            first.write_bytes(token)
            error = self.error(daemon, "dirty-log", "harvest", "a")
            self.assertEqual(error["reason"], "LOG_OWNED")
            self.assertIn("belongs to 'second' since ", error["message"])
            self.assertIn("mmuctl dirty-log peek a", error["message"])
            self.assertEqual(list((daemon.folder / "mmuctl").iterdir()), [])


if __name__ == "__main__":
    unittest.main()
