// The role of a field in requests and answers. The field's comment states it
// for people, and google.api.field_behavior for programs. Both must agree. If a
// caller could be in doubt about a field's role, it must be stated.

#include <algorithm>
#include <functional>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "google/api/field_behavior.pb.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/descriptor.pb.h"
#include "gtest/gtest.h"
#include "tests/proto_conventions/descriptors.h"

namespace mmud {
namespace {

using ::google::api::FieldBehavior;
using ::google::protobuf::Descriptor;
using ::google::protobuf::FieldDescriptor;
using ::google::protobuf::MethodDescriptor;
using ::testing::UnorderedElementsAre;

std::set<FieldBehavior> BehaviorsOf(const FieldDescriptor* field) {
  std::set<FieldBehavior> all;
  const google::protobuf::FieldOptions& options = field->options();
  for (int i = 0; i < options.ExtensionSize(google::api::field_behavior); ++i) {
    all.insert(options.GetExtension(google::api::field_behavior, i));
  }
  return all;
}

bool Is(const FieldDescriptor* field, FieldBehavior behavior) {
  return BehaviorsOf(field).count(behavior) > 0;
}

class FieldBehaviorTest : public DescriptorsTest {
 protected:
  // All messages of the API that requests can contain. Leaves out messages that
  // only output-only fields contain.
  std::set<const Descriptor*> InRequests() const {
    std::set<const Descriptor*> reached;
    const std::function<void(const Descriptor*)> reach =
        [&](const Descriptor* message) {
          if (message->file()->package().rfind("mmud.", 0) != 0 ||
              !reached.insert(message).second) {
            return;
          }
          for (int i = 0; i < message->field_count(); ++i) {
            const FieldDescriptor* field = message->field(i);
            if (field->message_type() != nullptr &&
                !Is(field, google::api::OUTPUT_ONLY)) {
              reach(field->message_type());
            }
          }
        };
    for (const MethodDescriptor* method : Methods(OurFiles())) {
      reach(method->input_type());
    }
    return reached;
  }

  std::vector<const FieldDescriptor*> FieldsInRequests() const {
    std::vector<const FieldDescriptor*> all;
    for (const Descriptor* message : InRequests()) {
      for (int i = 0; i < message->field_count(); ++i) {
        all.push_back(message->field(i));
      }
    }
    return all;
  }
};

// A comment says "Required", "Output only" or "Immutable" as a sentence or at
// the beginning of one. The comment of a oneof applies to each of its fields,
// except for "Required": no single field of a oneof is required.
TEST_F(FieldBehaviorTest, OptionsAndCommentsAgree) {
  const struct {
    FieldBehavior behavior;
    const char* words;
  } kSaid[] = {
      {google::api::REQUIRED, "(^|[.:] )Required[.;,:]"},
      {google::api::OUTPUT_ONLY, "(^|[.:] )Output only[.;,:]"},
      {google::api::IMMUTABLE, "(^|[.:] )Immutable[.;,:]"},
  };
  for (const auto& said : kSaid) {
    const std::regex words(said.words);
    int count = 0;
    for (const FieldDescriptor* field : Fields(OurFiles())) {
      bool in_comment = std::regex_search(CommentOf(field), words);
      if (field->containing_oneof() != nullptr &&
          said.behavior != google::api::REQUIRED) {
        in_comment |=
            std::regex_search(CommentOf(field->containing_oneof()), words);
      }
      const std::string& name = google::api::FieldBehavior_Name(said.behavior);
      EXPECT_EQ(Is(field, said.behavior), in_comment)
          << field->full_name()
          << (in_comment ? ": its comment says it, so add the option "
                         : ": its comment does not say it, so take away the "
                           "option ")
          << "(google.api.field_behavior) = " << name;
      count += in_comment ? 1 : 0;
    }
    EXPECT_GT(count, 0) << said.words;
  }
}

// The fields that name a request's resource: `vm`, `name` or `operation`, the
// first field, and the id of a resource to create.
TEST_F(FieldBehaviorTest, RequestsSayWhetherTheirResourceIsRequired) {
  std::vector<std::string> optional;
  int required = 0;
  for (const MethodDescriptor* method : Methods(OurFiles())) {
    const Descriptor* request = method->input_type();
    for (int i = 0; i < request->field_count(); ++i) {
      const FieldDescriptor* field = request->field(i);
      if (field->type() != FieldDescriptor::TYPE_STRING ||
          (field->name() != "vm" && field->name() != "name" &&
           field->name() != "operation" && field->name() != "vm_id")) {
        continue;
      }
      if (Is(field, google::api::OPTIONAL)) {
        optional.push_back(request->name());
      } else {
        EXPECT_TRUE(Is(field, google::api::REQUIRED))
            << field->full_name()
            << " is neither REQUIRED nor OPTIONAL: say what leaving it out "
               "means";
        ++required;
      }
    }
  }
  // Without the field these requests are about all VMs.
  EXPECT_THAT(optional, UnorderedElementsAre("GetMmuStatsRequest",
                                             "ListWorkloadsRequest"));
  EXPECT_GT(required, 10);
}

// Requests and answers share the messages of resources. For each field a caller
// must know whether to fill it in.
TEST_F(FieldBehaviorTest, ResourcesSayWhatTheServerFillsIn) {
  int resources = 0;
  for (const Descriptor* message : InRequests()) {
    // The `name` of a resource is its own; the `name` of a request is that of
    // another resource.
    const FieldDescriptor* name = message->FindFieldByName("name");
    if (name == nullptr || message->name().ends_with("Request")) continue;
    ++resources;
    for (int i = 0; i < message->field_count(); ++i) {
      const FieldDescriptor* field = message->field(i);
      const bool is_time =
          field->message_type() != nullptr &&
          field->message_type()->full_name() == "google.protobuf.Timestamp";
      if (field == name || field->name() == "uid" || field->name() == "etag" ||
          field->name() == "generation" || field->name().ends_with("state") ||
          is_time) {
        EXPECT_TRUE(Is(field, google::api::OUTPUT_ONLY) ||
                    Is(field, google::api::IDENTIFIER))
            << field->full_name() << " is neither OUTPUT_ONLY nor IDENTIFIER";
      }
    }
  }
  EXPECT_GE(resources, 2);
}

// A message that no request contains needs no field_behavior.
TEST_F(FieldBehaviorTest, WhatOnlyAnswersHaveSaysNothing) {
  const std::set<const Descriptor*> in_requests = InRequests();
  for (const FieldDescriptor* field : Fields(OurFiles())) {
    if (in_requests.count(field->containing_type()) > 0) continue;
    EXPECT_TRUE(BehaviorsOf(field).empty())
        << field->full_name() << " is in no request: take the option away";
  }
}

TEST_F(FieldBehaviorTest, BehaviorsGoTogether) {
  for (const FieldDescriptor* field : FieldsInRequests()) {
    std::set<FieldBehavior> behaviors = BehaviorsOf(field);
    // These are the only behaviors that a field can have together.
    if (behaviors == std::set<FieldBehavior>{google::api::REQUIRED,
                                             google::api::IMMUTABLE}) {
      continue;
    }
    EXPECT_LE(behaviors.size(), 1u) << field->full_name();
  }
}

}  // namespace
}  // namespace mmud
