#include "tests/fuzz/any_message.h"

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "tests/fuzz/mutation.h"

namespace mmud::fuzz {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

int64_t AnyNumber(Random& random) {
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  const int64_t kSome[] = {0,
                           1,
                           -1,
                           2,
                           4095,
                           4096,
                           8192,
                           262144,
                           (int64_t{1} << 20),
                           kMax,
                           -kMax - 1,
                           kMax / 2,
                           kMax - 4095,
                           int64_t{1} << 21,
                           int64_t{1} << 30,
                           64,
                           int64_t{1} << 40,
                           int64_t{1} << 52};
  switch (Below(random, 4)) {
    case 0:
      return static_cast<int64_t>(random());
    case 1:
      return static_cast<int64_t>(Below(random, 1000));
    default:
      return kSome[Below(random, std::size(kSome))];
  }
}

// A random string, with or without a meaning for the field.
std::string AnyString(const FieldDescriptor& field, Random& random) {
  const std::string kSome[] = {
      "vms/alpha",
      "vms/alpha/memslots/0",
      "operations/1",
      "operations/3f0d7c52-7f41-4b7e-8d35-6a0c9d1e2f3b",
      "alpha",
      "",
      "vms/",
      "../../etc/passwd",
      "sort.trace",
      "vms/\xff",
      std::string(5000, 'a'),
      "0b7c6a4e-53a8-4f0c-9d7e-1f2a3b4c5d6e"};
  std::string text = kSome[Below(random, std::size(kSome))];
  if (Below(random, 4) == 0) {
    text.assign(Below(random, 40), static_cast<char>('!' + Below(random, 90)));
  }
  if (field.type() == FieldDescriptor::TYPE_BYTES) {
    text.assign(Below(random, 70), static_cast<char>(random()));
  } else {
    for (char& c : text) c = static_cast<char>(c & 0x7f);
  }
  return text;
}

void SetField(Message* message, const FieldDescriptor& field, int depth,
              Random& random) {
  const Reflection& reflection = *message->GetReflection();
  const bool repeated = field.is_repeated();
  switch (field.cpp_type()) {
#define SET(Type, value)                        \
  {                                             \
    const auto x = value;                       \
    if (repeated) {                             \
      reflection.Add##Type(message, &field, x); \
    } else {                                    \
      reflection.Set##Type(message, &field, x); \
    }                                           \
    break;                                      \
  }
    case FieldDescriptor::CPPTYPE_INT32:
      SET(Int32, static_cast<int32_t>(AnyNumber(random)))
    case FieldDescriptor::CPPTYPE_INT64:
      SET(Int64, AnyNumber(random))
    case FieldDescriptor::CPPTYPE_UINT32:
      SET(UInt32, static_cast<uint32_t>(AnyNumber(random)))
    case FieldDescriptor::CPPTYPE_UINT64:
      SET(UInt64, static_cast<uint64_t>(AnyNumber(random)))
    case FieldDescriptor::CPPTYPE_DOUBLE:
      SET(Double, Below(random, 3) == 0
                      ? std::numeric_limits<double>::quiet_NaN()
                      : static_cast<double>(AnyNumber(random)) * 0.25)
    case FieldDescriptor::CPPTYPE_FLOAT:
      SET(Float, static_cast<float>(AnyNumber(random)))
    case FieldDescriptor::CPPTYPE_BOOL:
      SET(Bool, Below(random, 2) == 0)
    case FieldDescriptor::CPPTYPE_ENUM:
      SET(EnumValue, static_cast<int>(Below(random, 6)) - 1)
    case FieldDescriptor::CPPTYPE_STRING:
      SET(String, AnyString(field, random))
#undef SET
    case FieldDescriptor::CPPTYPE_MESSAGE:
      if (depth > 0) {
        Fill(repeated ? reflection.AddMessage(message, &field)
                      : reflection.MutableMessage(message, &field),
             depth - 1, random);
      }
      break;
  }
}

// A message within the message, at random; the message itself if it has none.
Message* AnyPart(Message* message, Random& random) {
  const Reflection& reflection = *message->GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection.ListFields(*message, &fields);
  std::vector<Message*> parts = {message};
  for (const FieldDescriptor* field : fields) {
    if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) continue;
    if (!field->is_repeated()) {
      parts.push_back(reflection.MutableMessage(message, field));
      continue;
    }
    for (int i = 0; i < reflection.FieldSize(*message, field); ++i) {
      parts.push_back(reflection.MutableRepeatedMessage(message, field, i));
    }
  }
  Message* part = parts[Below(random, parts.size())];
  return part == message ? message : AnyPart(part, random);
}

}  // namespace

void Fill(Message* message, int depth, Random& random) {
  const Descriptor& descriptor = *message->GetDescriptor();
  for (int i = 0; i < descriptor.field_count(); ++i) {
    const FieldDescriptor& field = *descriptor.field(i);
    const uint64_t times =
        field.is_repeated() ? Below(random, 4) : Below(random, 3);
    for (uint64_t j = 0; j < times; ++j) {
      SetField(message, field, depth, random);
    }
  }
}

void MutateMessage(Message* message, Random& random) {
  Message* part = AnyPart(message, random);
  const Descriptor& descriptor = *part->GetDescriptor();
  if (descriptor.field_count() == 0) return;
  const FieldDescriptor& field = *descriptor.field(static_cast<int>(
      Below(random, static_cast<uint64_t>(descriptor.field_count()))));
  if (Below(random, 4) == 0) {
    part->GetReflection()->ClearField(part, &field);
    return;
  }
  SetField(part, field, 2, random);
}

}  // namespace mmud::fuzz
