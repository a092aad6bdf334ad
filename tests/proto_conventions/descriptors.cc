#include "tests/proto_conventions/descriptors.h"

#include <fstream>
#include <functional>

#include "absl/strings/match.h"
#include "google/protobuf/descriptor.pb.h"

namespace mmud {

using ::google::protobuf::Descriptor;
using ::google::protobuf::EnumDescriptor;
using ::google::protobuf::FieldDescriptor;
using ::google::protobuf::FileDescriptor;
using ::google::protobuf::MethodDescriptor;
using ::google::protobuf::ServiceDescriptor;

namespace {

constexpr char kDescriptors[] = "tests/proto_conventions/descriptors.bin";

}  // namespace

void DescriptorsTest::SetUp() {
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

std::vector<const FileDescriptor*> DescriptorsTest::OurFiles() const {
  std::vector<const FileDescriptor*> ours;
  for (const FileDescriptor* file : files_) {
    if (absl::StartsWith(file->package(), "mmud.")) ours.push_back(file);
  }
  return ours;
}

std::vector<const Descriptor*> Messages(
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

std::vector<const FieldDescriptor*> Fields(
    const std::vector<const FileDescriptor*>& files) {
  std::vector<const FieldDescriptor*> all;
  for (const Descriptor* message : Messages(files)) {
    for (int i = 0; i < message->field_count(); ++i) {
      all.push_back(message->field(i));
    }
  }
  return all;
}

std::vector<const EnumDescriptor*> Enums(
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

std::vector<const ServiceDescriptor*> Services(
    const std::vector<const FileDescriptor*>& files) {
  std::vector<const ServiceDescriptor*> all;
  for (const FileDescriptor* file : files) {
    for (int i = 0; i < file->service_count(); ++i) {
      all.push_back(file->service(i));
    }
  }
  return all;
}

std::vector<const MethodDescriptor*> Methods(
    const std::vector<const FileDescriptor*>& files) {
  std::vector<const MethodDescriptor*> all;
  for (const ServiceDescriptor* service : Services(files)) {
    for (int i = 0; i < service->method_count(); ++i) {
      all.push_back(service->method(i));
    }
  }
  return all;
}

}  // namespace mmud
