#!/usr/bin/python3
"""mmuctl dirty-log against the real daemon: leases, tokens and what fails."""

import json
import os
import signal
import subprocess
import tempfile
import unittest

from daemon import MMUCTL, Daemon


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
            self.assertIn("you owned the log already", text)
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
                             "show the VM's memslots: mmuctl vm get a")
            error = self.error(daemon, "dirty-log", "harvest", "a", "1")
            self.assertEqual(error["reason"], "DIRTY_LOG_OFF")
            self.assertEqual(error["exit_code"], 5)
            self.assertIn("mmuctl dirty-log get a", error["fix"])
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
            self.assertFalse(first.exists())
            daemon.must("vm", "create", "a", "--memory", "4MiB")
            # Somebody else's log, whose token is not kept here.
            daemon.must("dirty-log", "start", "a", "--owner", "second")
            first.write_bytes(token)
            error = self.error(daemon, "dirty-log", "harvest", "a")
            self.assertEqual(error["reason"], "LOG_OWNED")
            self.assertIn("belongs to 'second' since ", error["message"])
            self.assertIn("mmuctl dirty-log peek a", error["message"])
            self.assertEqual(list((daemon.folder / "mmuctl").iterdir()), [])

    def test_a_token_is_kept_while_a_memslot_is_not_in_the_log(self):
        with Daemon() as daemon:
            daemon.must("vm", "create", "a", "--memslot", "0:0+4MiB",
                        "1:1GiB+4MiB")
            daemon.must("dirty-log", "start", "a", "0")
            daemon.must("dirty-log", "seal", "a")
            error = self.error(daemon, "dirty-log", "clear", "a", "1",
                               "--epoch", "1", "--range", "1GiB+1MiB")
            self.assertEqual(error["reason"], "DIRTY_LOG_OFF")
            daemon.must("dirty-log", "harvest", "a")

    def test_a_token_is_forgotten_with_its_log_and_with_its_vm(self):
        with Daemon() as daemon:
            daemon.must("vm", "create", "a", "--memory", "4MiB")
            daemon.must("dirty-log", "start", "a")
            token, = (daemon.folder / "mmuctl").iterdir()
            kept = token.read_bytes()
            # By somebody else.
            with tempfile.TemporaryDirectory() as other:
                daemon.must("dirty-log", "stop", "a", "--force",
                            XDG_RUNTIME_DIR=other)
            error = self.error(daemon, "dirty-log", "harvest", "a")
            self.assertEqual(error["reason"], "DIRTY_LOG_OFF")
            self.assertFalse(token.exists())
            token.touch(mode=0o600)
            token.write_bytes(kept)
            with tempfile.TemporaryDirectory() as other:
                daemon.must("vm", "delete", "a", XDG_RUNTIME_DIR=other)
            error = self.error(daemon, "dirty-log", "harvest", "a")
            self.assertEqual(error["reason"], "VM_NOT_FOUND")
            self.assertFalse(token.exists())

    def test_a_log_is_stopped_by_force_where_no_token_can_be_kept(self):
        with Daemon() as daemon:
            nowhere = {"XDG_RUNTIME_DIR": "/proc", "HOME": "/proc"}
            daemon.must("vm", "create", "a", "--memory", "4MiB")
            daemon.must("dirty-log", "start", "a")
            result = daemon.run("dirty-log", "stop", "a", **nowhere)
            self.assertEqual(result.returncode, 5)
            self.assertIn("/proc/mmuctl cannot be made", result.stderr)
            self.assertIn("/proc/.cache cannot be made", result.stderr)
            daemon.must("dirty-log", "stop", "a", "--force", **nowhere)

    def test_a_token_is_found_by_every_spelling_of_the_socket(self):
        with Daemon() as daemon:
            daemon.must("vm", "create", "a", "--memory", "4MiB")
            daemon.must("dirty-log", "start", "a")
            path = daemon.address.removeprefix("unix:")
            doubled = path.replace("/mmud.sock", "//mmud.sock")
            for address in (f"unix://{path}", path, f"unix:{doubled}",
                            f"unix:{os.path.relpath(path)}"):
                daemon.must("--address", address, "dirty-log", "harvest", "a")

    def test_an_interrupted_harvest_shows_what_it_took(self):
        with Daemon() as daemon:
            pages = 1 << 20
            daemon.must("vm", "create", "a", "--memory", "4GiB", "--backing",
                        "metadata-only")
            daemon.must("dirty-log", "start", "a", "--initially-set")
            # So many clears that one of them is at work.
            process = subprocess.Popen(
                [MMUCTL, "--json", "dirty-log", "harvest", "a",
                 "--clear-range", "256KiB"], env=daemon.environment(),
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            while not self.log(daemon)["epochs_in_flight"]:
                self.assertIsNone(process.poll())
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=100)
            self.assertEqual(process.returncode, 130, err)
            error = json.loads(err)["error"]
            self.assertEqual(error["code"], "CANCELLED")
            self.assertEqual(error["exit_code"], 130)
            slot, = json.loads(out)["unfinished"]
            in_flight = self.log(daemon)["slots"][0]["in_flight_page_count"]
            self.assertEqual(slot["page_count"], in_flight)
            self.assertLess(in_flight, pages)
            # The next one of this owner has the others, and says so.
            harvest = json.loads(daemon.must("--json", "dirty-log", "harvest",
                                             "a"))
            self.assertEqual(harvest["page_count"], pages - in_flight)
            self.assertEqual(harvest["earlier_in_flight_page_count"], in_flight)
            # The advice brings all of them back.
            daemon.must("dirty-log", "acquire", "a", "--force")
            harvest = json.loads(daemon.must("--json", "dirty-log", "harvest",
                                             "a"))
            self.assertEqual(harvest["page_count"], pages)

    def test_a_harvest_that_cannot_be_written_is_an_error(self):
        with Daemon() as daemon:
            daemon.must("vm", "create", "a", "--memory", "4MiB")
            daemon.must("dirty-log", "start", "a", "--initially-set")
            with open("/dev/full", "w") as full:
                result = subprocess.run(
                    [MMUCTL, "dirty-log", "harvest", "a"], stdout=full,
                    env=daemon.environment(), stderr=subprocess.PIPE, text=True)
            self.assertEqual(result.returncode, 10)
            self.assertIn("cannot write to standard output: No space left",
                          result.stderr)
            self.assertIn("mmuctl dirty-log acquire a --force", result.stderr)


if __name__ == "__main__":
    unittest.main()
