// Inputs that are a list of messages of the API, and their changes.
//
// Each message of the list is its length in two bytes, little-endian, and its
// bytes.

#ifndef TESTS_FUZZ_MESSAGES_H_
#define TESTS_FUZZ_MESSAGES_H_

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "google/protobuf/message.h"
#include "tests/fuzz/mutation.h"

namespace mmud::fuzz {

// The longest message of a list.
inline constexpr size_t kMaxMessageBytes = (1 << 16) - 1;

// Never fails: a length that reaches beyond the end is cut.
std::vector<std::string> SplitMessages(std::string_view input);
// A message that is too long is cut.
std::string JoinMessages(const std::vector<std::string>& messages);

// Drops, repeats or swaps messages, changes one as MutateMessage does, or
// changes bytes. `prototype` gives the type of all messages.
std::vector<std::string> MutateMessages(
    std::vector<std::string> messages,
    const google::protobuf::Message& prototype, Random& random);

}  // namespace mmud::fuzz

#endif  // TESTS_FUZZ_MESSAGES_H_
