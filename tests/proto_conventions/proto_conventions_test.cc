// The conventions of the API, checked on what protoc knows about its files:
// names and units, request ids, pages of lists, comments, and that the
// definitions beside it still are wire-compatible.

#include <algorithm>
#include <fstream>
#include <functional>
#include <regex>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gmock/gmock.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/descriptor.pb.h"
#include "gtest/gtest.h"

namespace mmud {
namespace {

using ::google::protobuf::Descriptor;
using ::google::protobuf::DescriptorPool;
using ::google::protobuf::EnumDescriptor;
using ::google::protobuf::FieldDescriptor;
using ::google::protobuf::FileDescriptor;
using ::google::protobuf::MethodDescriptor;
using ::google::protobuf::ServiceDescriptor;
using ::google::protobuf::SourceLocation;
using ::testing::ElementsAre;

constexpr char kDescriptors[] = "tests/proto_conventions/descriptors.bin";
constexpr char kOperation[] = "google.longrunning.Operation";

// Names of fields that number things instead of measuring them.
constexpr std::string_view kOrdinals[] = {
    "epoch", "open_epoch", "sealed_epoch", "generation", "seed", "value"};

bool EndsWithOneOf(std::string_view name,
                   std::initializer_list<std::string_view> endings) {
  return std::any_of(
      endings.begin(), endings.end(),
      [name](std::string_view ending) { return name.ends_with(ending); });
}

class ProtoConventionsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::ifstream file(kDescriptors, std::ios::binary);
    google::protobuf::FileDescriptorSet set;
    ASSERT_TRUE(set.ParseFromIstream(&file)) << kDescriptors;
    for (const auto& proto : set.file()) {
      const FileDescriptor* built = pool_.BuildFile(proto);
      ASSERT_NE(built, nullptr) << proto.name();
      if (!absl::StartsWith(built->name(), "google/protobuf/")) {
        files_.push_back(built);
      }
    }
    ASSERT_FALSE(OurFiles().empty());
  }

  // The files of mmud.v1.
  std::vector<const FileDescriptor*> OurFiles() const {
    std::vector<const FileDescriptor*> ours;
    for (const FileDescriptor* file : files_) {
      if (file->package() == "mmud.v1") ours.push_back(file);
    }
    return ours;
  }

  // All messages of `files`, nested ones included, map entries not.
  static std::vector<const Descriptor*> Messages(
      const std::vector<const FileDescriptor*>& files) {
    std::vector<const Descriptor*> all;
    const std::function<void(const Descriptor*)> add =
        [&](const Descriptor* message) {
          if (message->options().map_entry()) return;
          all.push_back(message);
          for (int i = 0; i < message->nested_type_count(); ++i) {
            add(message->nested_type(i));
          }
        };
    for (const FileDescriptor* file : files) {
      for (int i = 0; i < file->message_type_count(); ++i) {
        add(file->message_type(i));
      }
    }
    return all;
  }

  static std::vector<const FieldDescriptor*> Fields(
      const std::vector<const FileDescriptor*>& files) {
    std::vector<const FieldDescriptor*> all;
    for (const Descriptor* message : Messages(files)) {
      for (int i = 0; i < message->field_count(); ++i) {
        all.push_back(message->field(i));
      }
    }
    return all;
  }

  static std::vector<const EnumDescriptor*> Enums(
      const std::vector<const FileDescriptor*>& files) {
    std::vector<const EnumDescriptor*> all;
    for (const FileDescriptor* file : files) {
      for (int i = 0; i < file->enum_type_count(); ++i) {
        all.push_back(file->enum_type(i));
      }
    }
    for (const Descriptor* message : Messages(files)) {
      for (int i = 0; i < message->enum_type_count(); ++i) {
        all.push_back(message->enum_type(i));
      }
    }
    return all;
  }

  static std::vector<const ServiceDescriptor*> Services(
      const std::vector<const FileDescriptor*>& files) {
    std::vector<const ServiceDescriptor*> all;
    for (const FileDescriptor* file : files) {
      for (int i = 0; i < file->service_count(); ++i) {
        all.push_back(file->service(i));
      }
    }
    return all;
  }

  static std::vector<const MethodDescriptor*> Methods(
      const std::vector<const FileDescriptor*>& files) {
    std::vector<const MethodDescriptor*> all;
    for (const ServiceDescriptor* service : Services(files)) {
      for (int i = 0; i < service->method_count(); ++i) {
        all.push_back(service->method(i));
      }
    }
    return all;
  }

  // Fields of a message as "name = number: type", in the order of the file.
  std::vector<std::string> Layout(const std::string& message_name) const {
    std::vector<std::string> layout;
    const Descriptor* message = pool_.FindMessageTypeByName(message_name);
    if (message == nullptr) return {"no such message"};
    for (int i = 0; i < message->field_count(); ++i) {
      const FieldDescriptor* field = message->field(i);
      std::string type = field->type_name();
      if (field->is_map()) {
        type = "map";
      } else if (field->message_type() != nullptr) {
        type = field->message_type()->full_name();
      }
      layout.push_back(absl::StrCat(
          field->name(), " = ", field->number(), ": ",
          field->is_repeated() && !field->is_map() ? "repeated " : "", type));
    }
    return layout;
  }

  DescriptorPool pool_;
  std::vector<const FileDescriptor*> files_;
};

template <typename D>
std::string CommentOf(const D* descriptor) {
  SourceLocation location;
  if (!descriptor->GetSourceLocation(&location)) return "";
  return location.leading_comments;
}

template <typename D>
void ExpectCommented(const D* descriptor) {
  EXPECT_FALSE(absl::StripAsciiWhitespace(CommentOf(descriptor)).empty())
      << descriptor->full_name() << " has no comment above it";
}

TEST_F(ProtoConventionsTest, EverythingHasAComment) {
  for (const auto* message : Messages(files_)) ExpectCommented(message);
  for (const auto* field : Fields(files_)) ExpectCommented(field);
  for (const auto* service : Services(files_)) ExpectCommented(service);
  for (const auto* method : Methods(files_)) ExpectCommented(method);
  for (const auto* type : Enums(files_)) {
    ExpectCommented(type);
    for (int i = 0; i < type->value_count(); ++i) {
      ExpectCommented(type->value(i));
    }
  }
}

TEST_F(ProtoConventionsTest, ReasonsNamedInCommentsExist) {
  // A comment may name a reason, or an enum value without its prefix.
  std::set<std::string> known = {"UPPER_SNAKE", "NOT_FOUND", "ALREADY_EXISTS",
                                 "INVALID_ARGUMENT", "OUT_OF_RANGE"};
  std::vector<std::string> values;
  for (const auto* type : Enums(files_)) {
    for (int i = 0; i < type->value_count(); ++i) {
      values.push_back(type->value(i)->name());
    }
  }
  const auto is_known = [&](const std::string& word) {
    return known.count(word) > 0 ||
           std::any_of(
               values.begin(), values.end(), [&](const std::string& value) {
                 return value == word || absl::EndsWith(value, "_" + word);
               });
  };
  const auto check = [&](const auto* descriptor) {
    const std::string comment = CommentOf(descriptor);
    static const std::regex kWord("\\b[A-Z][A-Z0-9]*(_[A-Z0-9]+)+\\b");
    for (std::sregex_iterator it(comment.begin(), comment.end(), kWord), end;
         it != end; ++it) {
      EXPECT_TRUE(is_known(it->str()))
          << descriptor->full_name() << " speaks of " << it->str();
    }
  };
  for (const auto* message : Messages(OurFiles())) check(message);
  for (const auto* field : Fields(OurFiles())) check(field);
  for (const auto* method : Methods(OurFiles())) check(method);
}

TEST_F(ProtoConventionsTest, EnumsBeginWithUnspecified) {
  for (const EnumDescriptor* type : Enums(OurFiles())) {
    EXPECT_EQ(type->value(0)->number(), 0) << type->full_name();
    EXPECT_TRUE(absl::EndsWith(type->value(0)->name(), "_UNSPECIFIED"))
        << type->value(0)->full_name();
  }
}

TEST_F(ProtoConventionsTest, EnumValuesCarryTheNameOfTheirEnum) {
  for (const EnumDescriptor* type : Enums(OurFiles())) {
    // Reasons travel as strings, under their own names.
    if (type->name() == "ErrorReason") continue;
    const std::string zero = type->value(0)->name();
    const std::string prefix =
        zero.substr(0, zero.size() - std::string("UNSPECIFIED").size());
    for (int i = 0; i < type->value_count(); ++i) {
      EXPECT_TRUE(absl::StartsWith(type->value(i)->name(), prefix))
          << type->value(i)->full_name();
    }
  }
}

TEST_F(ProtoConventionsTest, OneServicePerFileAndItsNameEndsInService) {
  for (const FileDescriptor* file : OurFiles()) {
    EXPECT_LE(file->service_count(), 1) << file->name();
  }
  for (const ServiceDescriptor* service : Services(OurFiles())) {
    EXPECT_TRUE(absl::EndsWith(service->name(), "Service"))
        << service->full_name();
  }
}

TEST_F(ProtoConventionsTest, EachMethodHasItsOwnRequestAndResponse) {
  for (const MethodDescriptor* method : Methods(OurFiles())) {
    EXPECT_EQ(method->input_type()->name(), method->name() + "Request");
    if (method->output_type()->full_name() == kOperation) continue;
    EXPECT_EQ(method->output_type()->name(), method->name() + "Response");
  }
}

TEST_F(ProtoConventionsTest, MutatingMethodsTakeARequestId) {
  std::vector<std::string> reading;
  for (const MethodDescriptor* method : Methods(OurFiles())) {
    const FieldDescriptor* id =
        method->input_type()->FindFieldByName("request_id");
    if (id == nullptr) {
      reading.push_back(method->name());
    } else {
      EXPECT_EQ(id->type(), FieldDescriptor::TYPE_STRING)
          << method->full_name();
    }
  }
  std::sort(reading.begin(), reading.end());
  EXPECT_THAT(reading,
              ElementsAre("GetBuildInfo", "GetCapabilities", "GetDirtyRate",
                          "GetMmuStats", "GetVm", "ListPageTables", "ListVms",
                          "ReadPages", "RunAudit"));
}

TEST_F(ProtoConventionsTest, UpdatesAndDeletesTakeAnEtag) {
  for (const MethodDescriptor* method : Methods(OurFiles())) {
    const std::string& name = method->name();
    if (!absl::StartsWith(name, "Delete") && !absl::StartsWith(name, "Set") &&
        !absl::StartsWith(name, "Update")) {
      continue;
    }
    EXPECT_NE(method->input_type()->FindFieldByName("etag"), nullptr) << name;
  }
}

TEST_F(ProtoConventionsTest, ListsComeInPages) {
  int lists = 0;
  for (const MethodDescriptor* method : Methods(files_)) {
    if (!absl::StartsWith(method->name(), "List")) continue;
    ++lists;
    const Descriptor* in = method->input_type();
    EXPECT_NE(in->FindFieldByName("page_size"), nullptr) << in->full_name();
    EXPECT_NE(in->FindFieldByName("page_token"), nullptr) << in->full_name();
    EXPECT_NE(method->output_type()->FindFieldByName("next_page_token"),
              nullptr)
        << method->output_type()->full_name();
  }
  EXPECT_GE(lists, 2);
}

TEST_F(ProtoConventionsTest, NumbersHaveTheirUnitInTheirName) {
  for (const FieldDescriptor* field : Fields(OurFiles())) {
    const std::string& name = field->name();
    switch (field->type()) {
      case FieldDescriptor::TYPE_INT64:
        EXPECT_TRUE(
            std::count(std::begin(kOrdinals), std::end(kOrdinals), name) > 0 ||
            EndsWithOneOf(name, {"_bytes", "_count", "_per_second",
                                 "_per_million_accesses"}))
            << field->full_name();
        break;
      case FieldDescriptor::TYPE_DOUBLE:
        EXPECT_TRUE(EndsWithOneOf(
            name, {"_ratio", "_fraction", "_per_second", "exponent"}))
            << field->full_name();
        break;
      case FieldDescriptor::TYPE_INT32:
        // Small numbers only: ids, levels and pages of lists.
        EXPECT_FALSE(EndsWithOneOf(name, {"_bytes", "_per_second"}))
            << field->full_name();
        break;
      case FieldDescriptor::TYPE_FIXED32:
        EXPECT_EQ(name, "crc32c") << field->full_name();
        break;
      default:
        EXPECT_TRUE(field->type() == FieldDescriptor::TYPE_STRING ||
                    field->type() == FieldDescriptor::TYPE_BYTES ||
                    field->type() == FieldDescriptor::TYPE_BOOL ||
                    field->type() == FieldDescriptor::TYPE_ENUM ||
                    field->type() == FieldDescriptor::TYPE_MESSAGE)
            << field->full_name() << " is a " << field->type_name();
    }
  }
}

TEST_F(ProtoConventionsTest, SizesAreBytesAndTimesAreWellKnownTypes) {
  const std::regex size("(^|_)(kb|mb|gb|kib|mib|gib)(_|$)");
  const std::regex time("(_|^)(ns|us|ms|sec|secs|seconds|millis|nanos)$");
  for (const FieldDescriptor* field : Fields(OurFiles())) {
    EXPECT_FALSE(std::regex_search(field->name(), size)) << field->full_name();
    if (!absl::EndsWith(field->name(), "_per_second")) {
      EXPECT_FALSE(std::regex_search(field->name(), time))
          << field->full_name();
    }
    if (EndsWithOneOf(field->name(), {"_time", "ttl", "duration"})) {
      ASSERT_NE(field->message_type(), nullptr) << field->full_name();
      EXPECT_EQ(field->message_type()->file()->package(), "google.protobuf")
          << field->full_name();
    }
  }
}

// Methods that change page tables, or look at all of them, say what it cost.
TEST_F(ProtoConventionsTest, AnswersThatTouchedAnMmuCarryItsCost) {
  for (const char* name :
       {"DeleteVmResponse", "SetMemslotResponse", "DeleteMemslotResponse",
        "SetShadowPageLimitResponse", "StartDirtyLogResponse",
        "StopDirtyLogResponse", "DirtyLogTrailer", "ClearDirtyLogResponse",
        "AgeRangeResponse", "RunAuditResponse", "SplitMetadata",
        "SplitHugePagesResponse", "RecoverMetadata",
        "RecoverHugePagesResponse"}) {
    const std::vector<std::string> layout =
        Layout(absl::StrCat("mmud.v1.", name));
    EXPECT_TRUE(std::any_of(layout.begin(), layout.end(),
                            [](const std::string& field) {
                              return absl::StartsWith(field, "cost = ") &&
                                     absl::EndsWith(field, "mmud.v1.MmuCost");
                            }))
        << name << ": " << absl::StrJoin(layout, ", ");
  }
}

TEST_F(ProtoConventionsTest, ErrorDetailsAreWireCompatible) {
  EXPECT_THAT(Layout("google.rpc.Status"),
              ElementsAre("code = 1: int32", "message = 2: string",
                          "details = 3: repeated google.protobuf.Any"));
  EXPECT_THAT(Layout("google.rpc.ErrorInfo"),
              ElementsAre("reason = 1: string", "domain = 2: string",
                          "metadata = 3: map"));
  EXPECT_THAT(Layout("google.rpc.RetryInfo"),
              ElementsAre("retry_delay = 1: google.protobuf.Duration"));
  EXPECT_THAT(Layout("google.rpc.BadRequest.FieldViolation"),
              ElementsAre("field = 1: string", "description = 2: string"));
  EXPECT_THAT(Layout("google.rpc.PreconditionFailure.Violation"),
              ElementsAre("type = 1: string", "subject = 2: string",
                          "description = 3: string"));
  EXPECT_THAT(Layout("google.rpc.QuotaFailure.Violation"),
              ElementsAre("subject = 1: string", "description = 2: string"));
  EXPECT_THAT(
      Layout("google.rpc.ResourceInfo"),
      ElementsAre("resource_type = 1: string", "resource_name = 2: string",
                  "owner = 3: string", "description = 4: string"));
}

TEST_F(ProtoConventionsTest, OperationsAreWireCompatible) {
  EXPECT_THAT(
      Layout(kOperation),
      ElementsAre("name = 1: string", "metadata = 2: google.protobuf.Any",
                  "done = 3: bool", "error = 4: google.rpc.Status",
                  "response = 5: google.protobuf.Any"));
  EXPECT_THAT(Layout("google.longrunning.ListOperationsRequest"),
              ElementsAre("name = 4: string", "filter = 1: string",
                          "page_size = 2: int32", "page_token = 3: string"));
  EXPECT_THAT(
      Layout("google.longrunning.ListOperationsResponse"),
      ElementsAre("operations = 1: repeated google.longrunning.Operation",
                  "next_page_token = 2: string"));
  EXPECT_THAT(
      Layout("google.longrunning.WaitOperationRequest"),
      ElementsAre("name = 1: string", "timeout = 2: google.protobuf.Duration"));
  std::vector<std::string> methods;
  for (const MethodDescriptor* method : Methods(files_)) {
    if (method->service()->full_name() == "google.longrunning.Operations") {
      methods.push_back(absl::StrCat(method->name(), " -> ",
                                     method->output_type()->full_name()));
    }
  }
  EXPECT_THAT(
      methods,
      ElementsAre("ListOperations -> google.longrunning.ListOperationsResponse",
                  "GetOperation -> google.longrunning.Operation",
                  "DeleteOperation -> google.protobuf.Empty",
                  "CancelOperation -> google.protobuf.Empty",
                  "WaitOperation -> google.longrunning.Operation"));
}

TEST_F(ProtoConventionsTest, HealthIsWireCompatible) {
  EXPECT_THAT(Layout("grpc.health.v1.HealthCheckRequest"),
              ElementsAre("service = 1: string"));
  const EnumDescriptor* status = pool_.FindEnumTypeByName(
      "grpc.health.v1.HealthCheckResponse.ServingStatus");
  ASSERT_NE(status, nullptr);
  std::vector<std::string> values;
  for (int i = 0; i < status->value_count(); ++i) {
    values.push_back(absl::StrCat(status->value(i)->number(), " ",
                                  status->value(i)->name()));
  }
  EXPECT_THAT(values, ElementsAre("0 UNKNOWN", "1 SERVING", "2 NOT_SERVING",
                                  "3 SERVICE_UNKNOWN"));
}

TEST_F(ProtoConventionsTest, ReflectionIsWireCompatible) {
  const std::string package = "grpc.reflection.v1alpha.";
  EXPECT_THAT(Layout(package + "ServerReflectionRequest"),
              ElementsAre("host = 1: string", "file_by_filename = 3: string",
                          "file_containing_symbol = 4: string",
                          "file_containing_extension = 5: " + package +
                              "ExtensionRequest",
                          "all_extension_numbers_of_type = 6: string",
                          "list_services = 7: string"));
  EXPECT_THAT(Layout(package + "ExtensionRequest"),
              ElementsAre("containing_type = 1: string",
                          "extension_number = 2: int32"));
  EXPECT_THAT(
      Layout(package + "ServerReflectionResponse"),
      ElementsAre(
          "valid_host = 1: string",
          "original_request = 2: " + package + "ServerReflectionRequest",
          "file_descriptor_response = 4: " + package + "FileDescriptorResponse",
          "all_extension_numbers_response = 5: " + package +
              "ExtensionNumberResponse",
          "list_services_response = 6: " + package + "ListServiceResponse",
          "error_response = 7: " + package + "ErrorResponse"));
  EXPECT_THAT(Layout(package + "FileDescriptorResponse"),
              ElementsAre("file_descriptor_proto = 1: repeated bytes"));
  EXPECT_THAT(
      Layout(package + "ListServiceResponse"),
      ElementsAre("service = 1: repeated " + package + "ServiceResponse"));
  EXPECT_THAT(Layout(package + "ServiceResponse"),
              ElementsAre("name = 1: string"));
  EXPECT_THAT(
      Layout(package + "ErrorResponse"),
      ElementsAre("error_code = 1: int32", "error_message = 2: string"));
}

}  // namespace
}  // namespace mmud
