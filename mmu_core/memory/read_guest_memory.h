// Copying guest memory while the guest runs.

#ifndef MMU_CORE_MEMORY_READ_GUEST_MEMORY_H_
#define MMU_CORE_MEMORY_READ_GUEST_MEMORY_H_

#include <cstddef>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/memory/memslot_table.h"

namespace mmu {

// Copies guest memory of address space 0 to `out` word by word; a vCPU that
// writes meanwhile leaves each 8-byte word old or new. INVALID_ARGUMENT
// UNALIGNED (EINVAL) unless `gpa` and the size are multiples of 8; OUT_OF_RANGE
// GPA_OUT_OF_RANGE if the range is not wholly inside memslots;
// FAILED_PRECONDITION NO_CONTENTS for a memslot of metadata only, and
// HOST_FRAME_MISSING (EFAULT) if whoever lends the memory has no frame to give.
// Frames that are missing are asked for, which may block. `out` is undefined
// after an error. Takes no lock. Not inside an RCU read section.
absl::Status ReadGuestMemory(const MemslotTable& slots, Gpa gpa,
                             absl::Span<std::byte> out);

// NO_CONTENTS, as above, of the first memslot in `ranges` of metadata only.
absl::Status CheckContents(const MemslotTable& slots,
                           const std::vector<GfnRange>& ranges);

}  // namespace mmu

#endif  // MMU_CORE_MEMORY_READ_GUEST_MEMORY_H_
