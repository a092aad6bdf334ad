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

// The number of times that a read asks for the frame of one page. A lender
// blocks for some milliseconds at each, so a read waits for about a second for
// a frame that does not come or does not stay; the read cannot be cancelled
// meanwhile.
inline constexpr size_t kMaxAsksPerPage = 100;

// Copies guest memory of address space 0 to `out` word by word. If a vCPU
// writes meanwhile, each 8-byte word is old or new. Missing frames are asked
// for, which may block. `out` is undefined after an error. Takes no lock. Not
// to be called inside an RCU read section. Errors:
//
//   INVALID_ARGUMENT     UNALIGNED (EINVAL): `gpa` or the size is not a
//                        multiple of 8
//   OUT_OF_RANGE         GPA_OUT_OF_RANGE: the range is not wholly inside
//                        memslots
//   FAILED_PRECONDITION  NO_CONTENTS: a memslot is metadata only
//   FAILED_PRECONDITION  HOST_FRAME_MISSING (EFAULT): the lender of the memory
//                        cannot provide a frame, or has been asked
//                        kMaxAsksPerPage times in vain
absl::Status ReadGuestMemory(const MemslotTable& slots, Gpa gpa,
                             absl::Span<std::byte> out);

// NO_CONTENTS, as above, of the first memslot in `ranges` of metadata only.
absl::Status CheckContents(const MemslotTable& slots,
                           const std::vector<GfnRange>& ranges);

}  // namespace mmu

#endif  // MMU_CORE_MEMORY_READ_GUEST_MEMORY_H_
