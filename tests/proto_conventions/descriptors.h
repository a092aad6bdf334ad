#ifndef MMUD_TESTS_PROTO_CONVENTIONS_DESCRIPTORS_H_
#define MMUD_TESTS_PROTO_CONVENTIONS_DESCRIPTORS_H_

#include <string>
#include <vector>

#include "google/protobuf/descriptor.h"
#include "gtest/gtest.h"

namespace mmud {

// The descriptors of the files below proto/, for tests that check them all.
class DescriptorsTest : public ::testing::Test {
 protected:
  void SetUp() override;

  // The files of the API: packages mmud.v1 and the like.
  std::vector<const google::protobuf::FileDescriptor*> OurFiles() const;

  google::protobuf::DescriptorPool pool_;

  // All files but those of google.protobuf.
  std::vector<const google::protobuf::FileDescriptor*> files_;
};

// All messages of `files`, nested ones included, map entries not.
std::vector<const google::protobuf::Descriptor*> Messages(
    const std::vector<const google::protobuf::FileDescriptor*>& files);

// All fields of these messages.
std::vector<const google::protobuf::FieldDescriptor*> Fields(
    const std::vector<const google::protobuf::FileDescriptor*>& files);

// All enums of `files`, also those within messages.
std::vector<const google::protobuf::EnumDescriptor*> Enums(
    const std::vector<const google::protobuf::FileDescriptor*>& files);

std::vector<const google::protobuf::ServiceDescriptor*> Services(
    const std::vector<const google::protobuf::FileDescriptor*>& files);

std::vector<const google::protobuf::MethodDescriptor*> Methods(
    const std::vector<const google::protobuf::FileDescriptor*>& files);

// The comment above an element, in one line; empty without one.
template <typename D>
std::string CommentOf(const D* descriptor) {
  google::protobuf::SourceLocation location;
  if (!descriptor->GetSourceLocation(&location)) return "";
  std::string text;
  for (char c : location.leading_comments) {
    const bool space = c == '\n' || c == ' ';
    if (!space || (!text.empty() && text.back() != ' ')) {
      text += space ? ' ' : c;
    }
  }
  if (!text.empty() && text.back() == ' ') text.pop_back();
  return text;
}

}  // namespace mmud

#endif  // MMUD_TESTS_PROTO_CONVENTIONS_DESCRIPTORS_H_
