#!/usr/bin/python3
"""Whether clients that were made from proto/api_baseline.txt still work."""

import importlib.machinery
import importlib.util
import pathlib
import sys
import unittest

from google.protobuf import descriptor_pb2

DESCRIPTORS = pathlib.Path("tests/proto_conventions/descriptors.bin")
BASELINE = pathlib.Path("proto/api_baseline.txt")

# The tool has no .py in its name.
sys.dont_write_bytecode = True
loader = importlib.machinery.SourceFileLoader("api_baseline",
                                              "tools/api_baseline")
api = importlib.util.module_from_spec(
    importlib.util.spec_from_loader("api_baseline", loader))
loader.exec_module(api)

Field = descriptor_pb2.FieldDescriptorProto


def load():
    return descriptor_pb2.FileDescriptorSet.FromString(
        DESCRIPTORS.read_bytes())


def named(elements, name):
    found, = [element for element in elements if element.name == name]
    return found


class ApiBaselineTest(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.files = load()

    def file(self, name):
        return named(self.files.file, f"mmud/v1/{name}.proto")

    def message(self, file, name):
        return named(self.file(file).message_type, name)

    def compared(self):
        return api.compare(api.elements_of(load()), api.elements_of(self.files))

    def assert_breaks(self, *lines):
        breaks, _ = self.compared()
        self.assertEqual(breaks, list(lines))

    def test_the_api_is_its_baseline(self):
        breaks, new = api.compare(api.read(BASELINE.read_text()),
                                  api.elements_of(self.files))
        self.assertEqual(
            breaks, [],
            "clients depend on these: put them back. Before the first release "
            "`tools/api_baseline --allow-breaking` may accept them")
        self.assertEqual(
            new, [], "`tools/api_baseline` adds these to the baseline")

    def test_the_baseline_is_read_as_it_was_written(self):
        elements = api.elements_of(self.files)
        self.assertEqual(api.read(api.text_of(elements)), elements)

    def test_a_field_gets_another_number(self):
        named(self.message("common", "Extent").field, "size_bytes").number = 3
        self.assert_breaks("field mmud.v1.Extent.size_bytes = 2 int64: "
                           "is now = 3 int64")

    def test_a_field_gets_another_type(self):
        named(self.message("common", "Extent").field,
              "size_bytes").type = Field.TYPE_UINT64
        self.assert_breaks("field mmud.v1.Extent.size_bytes = 2 int64: "
                           "is now = 2 uint64")

    def test_a_field_gets_another_label(self):
        named(self.message("common", "Extent").field,
              "size_bytes").label = Field.LABEL_REPEATED
        self.assert_breaks("field mmud.v1.Extent.size_bytes = 2 int64: "
                           "is now = 2 repeated int64")

    def test_a_field_becomes_optional(self):
        message = self.message("common", "Extent")
        field = named(message.field, "size_bytes")
        message.oneof_decl.add(name="_size_bytes")
        field.oneof_index, field.proto3_optional = 0, True
        self.assert_breaks("field mmud.v1.Extent.size_bytes = 2 int64: "
                           "is now = 2 optional int64")

    def test_a_field_gets_another_name(self):
        named(self.message("common", "Extent").field,
              "size_bytes").name = "length_bytes"
        self.assert_breaks("field mmud.v1.Extent.size_bytes = 2 int64: is gone; "
                           "its number is now that of length_bytes")
        self.assertEqual(self.compared()[1], [
            "field mmud.v1.Extent.length_bytes = 2 int64: is new"])

    def test_a_field_leaves_its_oneof(self):
        named(self.message("guest_memory_service", "ReadPagesResponse").field,
              "chunk").ClearField("oneof_index")
        self.assert_breaks(
            "field mmud.v1.ReadPagesResponse.chunk = 1 mmud.v1.PageChunk in "
            "oneof part: is now = 1 mmud.v1.PageChunk")

    def test_a_field_goes(self):
        del self.message("common", "Extent").field[:1]
        self.assert_breaks("field mmud.v1.Extent.gpa_bytes = 1 int64: is gone")

    def test_a_message_goes(self):
        self.message("common", "Extent").name = "Range"
        self.assertIn("message mmud.v1.Extent in mmud/v1/common.proto: is gone",
                      self.compared()[0])

    def test_a_message_moves_to_another_file(self):
        common = self.file("common")
        extent = named(common.message_type, "Extent")
        self.file("stats_service").message_type.append(extent)
        common.message_type.remove(extent)
        self.assert_breaks("message mmud.v1.Extent in mmud/v1/common.proto: is "
                           "now in mmud/v1/stats_service.proto")

    def test_a_value_of_an_enum_gets_another_number(self):
        named(named(self.file("common").enum_type, "PageSize").value,
              "PAGE_SIZE_2M").number = 9
        self.assert_breaks("value mmud.v1.PageSize.PAGE_SIZE_2M = 2: is now = 9")

    def test_a_value_of_an_enum_goes(self):
        del named(self.file("common").enum_type, "PageSize").value[3:]
        self.assert_breaks("value mmud.v1.PageSize.PAGE_SIZE_1G = 3: is gone")

    def test_a_reason_goes(self):
        values = named(self.file("error_reasons").enum_type, "ErrorReason").value
        values.remove(named(values, "VM_NOT_FOUND"))
        self.assert_breaks(
            "value mmud.v1.ErrorReason.VM_NOT_FOUND = 40: is gone")

    def test_a_method_takes_something_else(self):
        named(self.file("stats_service").service[0].method,
              "GetMmuStats").input_type = ".mmud.v1.Extent"
        self.assert_breaks(
            "method mmud.v1.StatsService.GetMmuStats (mmud.v1."
            "GetMmuStatsRequest) returns (mmud.v1.GetMmuStatsResponse): is now "
            "(mmud.v1.Extent) returns (mmud.v1.GetMmuStatsResponse)")

    def test_a_method_no_longer_streams(self):
        named(self.file("guest_memory_service").service[0].method,
              "ReadPages").server_streaming = False
        self.assert_breaks(
            "method mmud.v1.GuestMemoryService.ReadPages (mmud.v1."
            "ReadPagesRequest) returns (stream mmud.v1.ReadPagesResponse): is "
            "now (mmud.v1.ReadPagesRequest) returns (mmud.v1.ReadPagesResponse)")

    def test_a_method_goes(self):
        del self.file("stats_service").service[0].method[:]
        self.assert_breaks(
            "method mmud.v1.StatsService.GetMmuStats (mmud.v1."
            "GetMmuStatsRequest) returns (mmud.v1.GetMmuStatsResponse): is gone")

    def test_a_service_goes(self):
        del self.file("stats_service").service[:]
        self.assertIn("service mmud.v1.StatsService in mmud/v1/"
                      "stats_service.proto: is gone", self.compared()[0])

    def test_a_package_of_go_or_java_changes(self):
        self.file("common").options.go_package = "mmud/v2;mmudv2"
        self.assert_breaks(
            "file mmud/v1/common.proto package mmud.v1, Go mmud/v1;mmudv1, Java "
            "mmud.v1.CommonProto: is now package mmud.v1, Go mmud/v2;mmudv2, "
            "Java mmud.v1.CommonProto")

    def test_a_number_is_given_free(self):
        message = self.message("common", "Extent")
        message.reserved_range.add(start=7, end=9)
        before = api.elements_of(self.files)
        breaks, _ = api.compare(before, api.elements_of(load()))
        self.assertEqual(breaks,
                         ["reserved mmud.v1.Extent.7-8 numbers: is gone"])

    def test_additions_break_nothing(self):
        self.message("common", "Extent").field.add(
            name="tag", number=9, type=Field.TYPE_STRING,
            label=Field.LABEL_OPTIONAL)
        named(self.file("common").enum_type, "PageSize").value.add(
            name="PAGE_SIZE_512G", number=4)
        self.assertEqual(self.compared(), (
            [], ["field mmud.v1.Extent.tag = 9 string: is new",
                 "value mmud.v1.PageSize.PAGE_SIZE_512G = 4: is new"]))

    def test_definitions_of_others_are_in_it_too(self):
        named(named(self.files.file, "google/rpc/status.proto").message_type[0]
              .field, "code").number = 7
        self.assert_breaks("field google.rpc.Status.code = 1 int32: is now = 7 "
                           "int32")


if __name__ == "__main__":
    unittest.main()
