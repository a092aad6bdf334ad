#!/usr/bin/python3
"""The project's definitions of google.* and grpc.* have upstream's descriptors.

A process has one pool of descriptors. Whoever imports modules that were made
from our files, and modules of upstream's packages beside them, gets an error at
the second of two files of one name unless they are the same in everything but
comments: fields, options, imports, and the order of all these.

Upstream's files come from Debian's grpc-proto and from the npm package
google-gax, which tools/fetch_npm fetches.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

from google.protobuf import descriptor_pb2, text_format

ROOT = pathlib.Path(os.path.realpath("WORKSPACE")).parent
OURS = ROOT / "proto"

# Where upstream's files are, and what brings them there.
UPSTREAM = {
    "google": (ROOT / "out/npm/google-gax/build/protos", "tools/fetch_npm"),
    "grpc": (pathlib.Path("/usr/share/grpc-proto"), "tools/setup"),
}


def files_of(package):
    return sorted(str(path.relative_to(OURS))
                  for path in (OURS / package).rglob("*.proto"))


def protoc(root, *arguments):
    subprocess.run(["protoc", f"--proto_path={root}",
                    "--proto_path=/usr/include", *arguments], check=True)


class UpstreamProtosTest(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.out = pathlib.Path(directory.name)
        for package, (root, command) in UPSTREAM.items():
            self.assertTrue((root / package).is_dir(),
                            f"upstream's definitions of {package} are missing "
                            f"in {root}: run {command}")

    def descriptors(self, root, names):
        """{name: FileDescriptorProto}, without comments."""
        out = self.out / "descriptors.bin"
        protoc(root, f"--descriptor_set_out={out}", *names)
        files = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes())
        return {file.name: file for file in files.file}

    def modules(self, folder, root, names):
        """Makes Python modules in a folder of its own, and returns that."""
        place = self.out / folder
        place.mkdir(exist_ok=True)
        protoc(root, f"--python_out={place}", *names)
        return place

    def python(self, *lines, path=()):
        """Runs a program in a process of its own: (exit code, output)."""
        done = subprocess.run(
            [sys.executable, "-B", "-c", "\n".join(lines)],
            env={**os.environ, "PYTHONPATH": ":".join(map(str, path))},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return done.returncode, done.stdout

    def load(self, place, names):
        """Lines that load the modules of a folder. Under names of their own,
        since modules of one name would be loaded once."""
        return ["import importlib.util"] + [
            f"spec = importlib.util.spec_from_file_location("
            f"'{place.name}{number}', '{place}/{name[:-len('.proto')]}_pb2.py')\n"
            f"module = importlib.util.module_from_spec(spec)\n"
            f"spec.loader.exec_module(module)"
            for number, name in enumerate(names)]

    def test_descriptors_are_equal(self):
        for package, (root, _) in UPSTREAM.items():
            names = files_of(package)
            self.assertGreaterEqual(len(names), 2)
            ours = self.descriptors(OURS, names)
            upstream = self.descriptors(root, names)
            for name in names:
                with self.subTest(name):
                    self.assertEqual(
                        text_format.MessageToString(ours[name]),
                        text_format.MessageToString(upstream[name]))
                    self.assertEqual(ours[name].SerializeToString(),
                                     upstream[name].SerializeToString())

    def test_one_process_imports_both(self):
        for package, (root, _) in UPSTREAM.items():
            names = files_of(package)
            ours = self.modules(f"ours_{package}", OURS, names)
            upstream = self.modules(f"upstream_{package}", root, names)
            for first, second in ((ours, upstream), (upstream, ours)):
                # What they import, they may take from either.
                with self.subTest(f"{first.name}, then {second.name}"):
                    code, output = self.python(
                        *self.load(first, names), *self.load(second, names),
                        "print('both')", path=[second])
                    self.assertEqual((code, output), (0, "both\n"))

    def test_our_api_works_with_upstreams_modules(self):
        api = files_of("mmud")
        ours = self.modules("api", OURS, api)
        root, _ = UPSTREAM["google"]
        upstream = self.modules("packages", root, files_of("google"))
        imports = [f"import {name[:-len('.proto')].replace('/', '.')}_pb2"
                   for name in api]
        code, output = self.python(
            *imports,
            "from google.longrunning import operations_pb2",
            "from google.rpc import error_details_pb2, status_pb2",
            "from mmud.v1 import split_service_pb2",
            "method = split_service_pb2.DESCRIPTOR.services_by_name["
            "    'SplitService'].methods_by_name['SplitHugePages']",
            "info = method.GetOptions().Extensions["
            "    operations_pb2.operation_info]",
            "print(info.response_type, method.output_type is"
            "    operations_pb2.Operation.DESCRIPTOR)",
            "status = status_pb2.Status(code=5)",
            "status.details.add().Pack("
            "    error_details_pb2.ErrorInfo(reason='VM_NOT_FOUND'))",
            "error = error_details_pb2.ErrorInfo()",
            "print(status.details[0].Unpack(error), error.reason)",
            "print(operations_pb2.__file__.startswith("
            f"    '{upstream}'))",
            path=[ours, upstream])
        self.assertEqual((code, output), (
            0, "SplitHugePagesResponse True\nTrue VM_NOT_FOUND\nTrue\n"))

    def test_another_definition_would_be_refused(self):
        # So that the tests above can fail.
        name = "google/rpc/error_details.proto"
        changed = self.out / "changed/google/rpc"
        changed.mkdir(parents=True)
        text = (OURS / name).read_text()
        field = "string owner = 3;"
        self.assertEqual(text.count(field), 1)
        (changed / "error_details.proto").write_text(text.replace(field, ""))
        ours = self.modules("ours", self.out / "changed", [name])
        upstream = self.modules("upstream", UPSTREAM["google"][0], [name])
        code, output = self.python(*self.load(ours, [name]),
                                   *self.load(upstream, [name]))
        self.assertEqual(code, 1)
        self.assertIn(name, output)


if __name__ == "__main__":
    unittest.main()
