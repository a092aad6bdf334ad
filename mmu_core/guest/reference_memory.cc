#include "mmu_core/guest/reference_memory.h"

#include <string>

#include "mmu_core/base/address.h"
#include "mmu_core/base/format.h"

namespace mmu {

uint64_t ReferenceMemory::Expected(uint64_t address_bytes) const {
  const auto it = words_.find(address_bytes);
  return it == words_.end() ? 0 : it->second;
}

void ReferenceMemory::ErasePage(uint64_t address_bytes) {
  const uint64_t page = address_bytes & ~kPageMask;
  words_.erase(words_.lower_bound(page), words_.lower_bound(page + kPageSize));
}

absl::Status ReferenceMemory::Check(std::string_view reader,
                                    uint64_t address_bytes,
                                    uint64_t word) const {
  const uint64_t expected = Expected(address_bytes);
  if (word == expected) return absl::OkStatus();
  return absl::DataLossError(
      Format("%s reads 0x%x at 0x%x, where 0x%x was written",
             std::string(reader), word, address_bytes, expected));
}

}  // namespace mmu
