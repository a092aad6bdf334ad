// Messages of any type with random contents, by reflection.

#ifndef TESTS_FUZZ_ANY_MESSAGE_H_
#define TESTS_FUZZ_ANY_MESSAGE_H_

#include "google/protobuf/message.h"
#include "tests/fuzz/mutation.h"

namespace mmud::fuzz {

// Sets about two in three fields to values with and without a meaning for the
// daemon. Messages within it are filled likewise, `depth` levels deep.
void Fill(google::protobuf::Message* message, int depth, Random& random);

// Sets, adds to or clears one field of the message or of one within it.
void MutateMessage(google::protobuf::Message* message, Random& random);

}  // namespace mmud::fuzz

#endif  // TESTS_FUZZ_ANY_MESSAGE_H_
