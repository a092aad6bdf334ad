// Gives libFuzzer the target of this program.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "google/protobuf/stubs/logging.h"
#include "tests/fuzz/mutation.h"
#include "tests/fuzz/target.h"

// The names are libFuzzer's.
extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  // It would write a line for each text that is not UTF-8.
  google::protobuf::SetLogHandler(nullptr);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const mmud::fuzz::Target target = mmud::fuzz::ThisTarget();
  target.run({reinterpret_cast<const char*>(data), size});
  return 0;
}

// One change in two is the target's own; the other ones are libFuzzer's, which
// uses what it saw compared.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size,
                                          size_t max_size, unsigned int seed) {
  static const mmud::fuzz::Target target = mmud::fuzz::ThisTarget();
  mmud::fuzz::Random random(seed);
  if (mmud::fuzz::Below(random, 2) == 0) {
    return LLVMFuzzerMutate(data, size, max_size);
  }
  const std::string changed =
      target.mutate({reinterpret_cast<const char*>(data), size}, random);
  const size_t kept = std::min(changed.size(), max_size);
  std::copy_n(changed.begin(), kept, reinterpret_cast<char*>(data));
  return kept;
}
