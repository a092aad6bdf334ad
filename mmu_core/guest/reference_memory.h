// What a program's memory has to hold: the flat map that a guest's memory is
// compared with.

#ifndef MMU_CORE_GUEST_REFERENCE_MEMORY_H_
#define MMU_CORE_GUEST_REFERENCE_MEMORY_H_

#include <cstdint>
#include <map>
#include <string_view>

#include "absl/status/status.h"

namespace mmu {

// Aligned 8-byte words by address; 0 where nothing was written. A value: the
// memory of a forked process is a copy of its parent's. Thread-compatible.
class ReferenceMemory {
 public:
  void Write(uint64_t address_bytes, uint64_t word) {
    words_[address_bytes] = word;
  }
  uint64_t Expected(uint64_t address_bytes) const;
  // The page of `address_bytes` holds zeros again.
  void ErasePage(uint64_t address_bytes);

  // DATA_LOSS if `word`, read at `address_bytes` by `reader`, is not expected.
  absl::Status Check(std::string_view reader, uint64_t address_bytes,
                     uint64_t word) const;

  // All words that were written, by address.
  const std::map<uint64_t, uint64_t>& words() const { return words_; }

  friend bool operator==(const ReferenceMemory&,
                         const ReferenceMemory&) = default;

 private:
  std::map<uint64_t, uint64_t> words_;
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_REFERENCE_MEMORY_H_
