// The expected contents of a program's memory: a flat map to compare a guest's
// memory with.

#ifndef MMU_CORE_GUEST_REFERENCE_MEMORY_H_
#define MMU_CORE_GUEST_REFERENCE_MEMORY_H_

#include <cstdint>
#include <map>
#include <string_view>

#include "absl/status/status.h"

namespace mmu {

// Aligned 8-byte words by address; words that were not written are 0. A value:
// the memory of a forked process is a copy of its parent's. Thread-compatible.
class ReferenceMemory {
 public:
  void Write(uint64_t address_bytes, uint64_t word) {
    words_[address_bytes] = word;
  }
  uint64_t Expected(uint64_t address_bytes) const;
  // Zeroes the page of `address_bytes`.
  void ErasePage(uint64_t address_bytes);

  // DATA_LOSS if `word`, which `reader` read at `address_bytes`, differs from
  // the expected word.
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
