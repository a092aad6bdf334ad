// A number that tells one file from another.

#ifndef TESTS_MODEL_FILE_DIGEST_H_
#define TESTS_MODEL_FILE_DIGEST_H_

#include <string>

#include "absl/status/statusor.h"

namespace mmu::testing {

// 64 bits over all bytes of the file, as 16 hexadecimal digits. Two builds
// that differ anywhere have the same one with a chance of 2^-64; it is no
// defence against files that are made to have it.
absl::StatusOr<std::string> DigestOfFile(const std::string& file);

}  // namespace mmu::testing

#endif  // TESTS_MODEL_FILE_DIGEST_H_
