#include "tests/fuzz/messages.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "google/protobuf/message.h"
#include "tests/fuzz/any_message.h"
#include "tests/fuzz/mutation.h"

namespace mmud::fuzz {

std::vector<std::string> SplitMessages(std::string_view input) {
  std::vector<std::string> messages;
  while (input.size() >= 2) {
    const size_t length = static_cast<uint8_t>(input[0]) +
                          (size_t{static_cast<uint8_t>(input[1])} << 8);
    input.remove_prefix(2);
    messages.emplace_back(input.substr(0, length));
    input.remove_prefix(std::min(length, input.size()));
  }
  return messages;
}

std::string JoinMessages(const std::vector<std::string>& messages) {
  std::string input;
  for (const std::string& message : messages) {
    const size_t length = std::min(message.size(), kMaxMessageBytes);
    input.push_back(static_cast<char>(length));
    input.push_back(static_cast<char>(length >> 8));
    input.append(message, 0, length);
  }
  return input;
}

std::vector<std::string> MutateMessages(
    std::vector<std::string> messages,
    const google::protobuf::Message& prototype, Random& random) {
  if (messages.empty()) messages.emplace_back();
  const size_t at = Below(random, messages.size());
  std::string& one = messages[at];
  switch (Below(random, 8)) {
    case 0:
      messages.erase(messages.begin() + static_cast<ptrdiff_t>(at));
      break;
    case 1:
      messages.push_back(std::string(one));
      break;
    case 2:
      std::swap(one, messages[Below(random, messages.size())]);
      break;
    case 3:
      one = MutateBytes(std::move(one), random);
      break;
    default: {
      const std::unique_ptr<google::protobuf::Message> message(prototype.New());
      // What was parsed before an error stays.
      message->ParsePartialFromString(one);
      MutateMessage(message.get(), random);
      one = message->SerializePartialAsString();
    }
  }
  return messages;
}

}  // namespace mmud::fuzz
