// The conventions of the API, checked on the descriptors of its files: names
// and units, request ids, paged lists, comments, reasons of errors, and the
// options that generators of other languages need.

#include <algorithm>
#include <regex>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "gmock/gmock.h"
#include "google/longrunning/operations.pb.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/descriptor.pb.h"
#include "gtest/gtest.h"
#include "mmu_core/base/reason.h"
#include "tests/proto_conventions/descriptors.h"

namespace mmud {
namespace {

using ::google::protobuf::Descriptor;
using ::google::protobuf::EnumDescriptor;
using ::google::protobuf::FieldDescriptor;
using ::google::protobuf::FileDescriptor;
using ::google::protobuf::MethodDescriptor;
using ::google::protobuf::ServiceDescriptor;
using ::testing::ElementsAre;

constexpr char kOperation[] = "google.longrunning.Operation";

// Names of fields that number things instead of measuring them.
constexpr std::string_view kOrdinals[] = {
    "epoch",       "open_epoch",         "sealed_epoch",
    "first_epoch", "acknowledged_epoch", "epochs_in_flight",
    "generation",  "newest_generation",  "number",
    "seed",        "sequence",           "value"};

bool EndsWithOneOf(std::string_view name,
                   std::initializer_list<std::string_view> endings) {
  return std::any_of(
      endings.begin(), endings.end(),
      [name](std::string_view ending) { return name.ends_with(ending); });
}

class ProtoConventionsTest : public DescriptorsTest {
 protected:
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
};

template <typename D>
void ExpectCommented(const D* descriptor) {
  EXPECT_FALSE(absl::StripAsciiWhitespace(CommentOf(descriptor)).empty())
      << descriptor->full_name() << " has no comment above it";
}

TEST_F(ProtoConventionsTest, EverythingHasAComment) {
  std::vector<const FileDescriptor*> files = files_;
  // This file has options for generators, none of which the project uses.
  files.erase(std::remove_if(files.begin(), files.end(),
                             [](const FileDescriptor* file) {
                               return file->name() == "google/api/client.proto";
                             }),
              files.end());
  EXPECT_EQ(files.size() + 1, files_.size());
  for (const auto* message : Messages(files)) ExpectCommented(message);
  for (const auto* field : Fields(files)) ExpectCommented(field);
  for (const auto* service : Services(files)) ExpectCommented(service);
  for (const auto* method : Methods(files)) ExpectCommented(method);
  for (const auto* type : Enums(files)) {
    ExpectCommented(type);
    for (int i = 0; i < type->value_count(); ++i) {
      ExpectCommented(type->value(i));
    }
  }
}

TEST_F(ProtoConventionsTest, ReasonsNamedInCommentsExist) {
  // A comment may name a reason, or an enum value without its prefix. It may
  // also name a feature of the Arm architecture or a constant of KVM.
  std::set<std::string> known = {"UPPER_SNAKE", "NOT_FOUND", "ALREADY_EXISTS",
                                 "INVALID_ARGUMENT", "OUT_OF_RANGE"};
  std::vector<std::string> values;
  for (const auto* type : Enums(files_)) {
    for (int i = 0; i < type->value_count(); ++i) {
      values.push_back(type->value(i)->name());
    }
  }
  const auto is_known = [&](const std::string& word) {
    return known.count(word) > 0 || absl::StartsWith(word, "FEAT_") ||
           absl::StartsWith(word, "KVM_") ||
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
    // Reasons are sent as strings, so their names have no prefix.
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

// A reason is sent as a string, ErrorInfo.reason. So its name has no prefix,
// and no message contains its number.
TEST_F(ProtoConventionsTest, ReasonsAreNamesWithoutPrefixAndNeverNumbers) {
  const EnumDescriptor* reasons =
      pool_.FindEnumTypeByName("mmud.v1.ErrorReason");
  ASSERT_NE(reasons, nullptr);
  for (int i = 0; i < reasons->value_count(); ++i) {
    const std::string& name = reasons->value(i)->name();
    EXPECT_EQ(absl::StartsWith(name, "ERROR_REASON_"),
              reasons->value(i)->number() == 0)
        << name;
  }
  for (const FieldDescriptor* field : Fields(files_)) {
    EXPECT_NE(field->enum_type(), reasons)
        << field->full_name() << " sends the number of a reason: make it a "
        << "string, or use google.rpc.ErrorInfo";
  }
}

// The list of reasons from which errors are made equals the enum that callers
// read, except for reasons that only mmu_core's own callers see.
TEST_F(ProtoConventionsTest, EachReasonThatCanBeSentIsOneOfTheApi) {
  const std::set<mmu::Reason> not_sent = {
      mmu::Reason::kAccounting,      mmu::Reason::kDirtyRingFull,
      mmu::Reason::kGuestPageFault,  mmu::Reason::kHostFrameMissing,
      mmu::Reason::kHostReadOnly,    mmu::Reason::kInterrupted,
      mmu::Reason::kInvalidFlags,    mmu::Reason::kInvalidNxHugePages,
      mmu::Reason::kMemslotChanging, mmu::Reason::kNoMemoryThere,
      mmu::Reason::kNoTdpMmu,        mmu::Reason::kNxHugePagesNever,
      mmu::Reason::kVmExistsAlready};
  std::set<std::string> made;
  for (size_t i = 1; i < mmu::kReasons; ++i) {
    const auto reason = static_cast<mmu::Reason>(i);
    if (not_sent.count(reason) == 0) {
      made.insert(std::string(mmu::ToString(reason)));
    }
  }
  const EnumDescriptor* reasons =
      pool_.FindEnumTypeByName("mmud.v1.ErrorReason");
  ASSERT_NE(reasons, nullptr);
  std::set<std::string> of_api;
  for (int i = 0; i < reasons->value_count(); ++i) {
    if (reasons->value(i)->number() != 0) {
      of_api.insert(reasons->value(i)->name());
    }
  }
  EXPECT_EQ(made, of_api);
}

// "split_service.proto" -> "SplitServiceProto".
std::string OuterClassOf(const FileDescriptor* file) {
  std::string name;
  const std::string& path = file->name();
  const size_t begin = path.rfind('/') + 1;
  bool upper = true;
  for (char c : path.substr(begin, path.rfind('.') - begin)) {
    if (c != '_') name += upper ? absl::ascii_toupper(c) : c;
    upper = c == '_';
  }
  return name + "Proto";
}

// Go and Java need options. Rust and Python use the package's name.
TEST_F(ProtoConventionsTest, FilesSayWhereOtherLanguagesPutThem) {
  for (const FileDescriptor* file : OurFiles()) {
    const google::protobuf::FileOptions& options = file->options();
    const std::string folder =
        absl::StrReplaceAll(file->package(), {{".", "/"}});
    EXPECT_EQ(file->name().substr(0, file->name().rfind('/')), folder);
    EXPECT_EQ(options.go_package(),
              absl::StrCat(folder, ";",
                           absl::StrReplaceAll(file->package(), {{".", ""}})))
        << file->name();
    EXPECT_EQ(options.java_package(), file->package()) << file->name();
    EXPECT_TRUE(options.java_multiple_files()) << file->name();
    EXPECT_EQ(options.java_outer_classname(), OuterClassOf(file));
  }
}

// An operation's result is a google.protobuf.Any, which does not name a message
// type. So an option has to name it.
TEST_F(ProtoConventionsTest, OperationsSayWhichMessagesTheyHold) {
  int count = 0;
  for (const MethodDescriptor* method : Methods(OurFiles())) {
    if (method->output_type()->full_name() != kOperation) continue;
    ++count;
    ASSERT_TRUE(
        method->options().HasExtension(google::longrunning::operation_info))
        << method->full_name() << " needs the option "
        << "(google.longrunning.operation_info)";
    const auto& info =
        method->options().GetExtension(google::longrunning::operation_info);
    for (const std::string& name :
         {info.response_type(), info.metadata_type()}) {
      EXPECT_NE(pool_.FindMessageTypeByName(
                    absl::StrCat(method->file()->package(), ".", name)),
                nullptr)
          << method->full_name() << ": no message '" << name << "'";
    }
  }
  EXPECT_GE(count, 2);
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
  EXPECT_THAT(
      reading,
      ElementsAre("GetAger", "GetBuildInfo", "GetCapabilities", "GetDirtyLog",
                  "GetDirtyRate", "GetMemslot", "GetMmuStats", "GetVm",
                  "GetWorkingSet", "GetWorkload",
                  // HarvestDirtyLog moves pages but repeats no
                  // message: a new stream seals again.
                  "HarvestDirtyLog", "ListHotRanges", "ListMemslots",
                  "ListPageTables", "ListVms", "ListWorkloads",
                  "ReadDirtyPages", "ReadPages", "RunAudit"));
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
        // 32 bits are only for small numbers: ids, levels and pages of lists.
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

// Methods that change page tables, or read all of them, return the cost.
TEST_F(ProtoConventionsTest, AnswersThatTouchedAnMmuCarryItsCost) {
  for (const char* name :
       {"DeleteVmResponse", "SetMemslotResponse", "DeleteMemslotResponse",
        "UpdateVmResponse", "StartDirtyLogResponse", "StartDirtyLogMetadata",
        "StopDirtyLogResponse", "SealDirtyLogResponse", "DirtyLogTrailer",
        "ClearDirtyLogResponse", "AgeRangeResponse", "RunAuditResponse",
        "SplitMetadata", "SplitHugePagesResponse", "RecoverMetadata",
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

}  // namespace
}  // namespace mmud
