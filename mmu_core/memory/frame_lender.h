// The lender of memory that a Backing does not own: the guest memory of another
// process, which that process goes on using (memory/backing.h).
//
// The frames of such memory come and go. A page may never have been touched,
// its owner may have given it back to the host, or it may be unreadable at the
// moment. So each page has a state, which the lender returns:
//
//   kMissing    there is no frame: the page can be neither mapped nor read
//   kReadOnly   there is a frame, which may be read
//   kReadWrite  there is a frame, which may be read and written
//
//   more rights   at any time; MakePresent asks for them
//   fewer rights  only between the start and the end of an invalidation of the
//                 page (vm/slots/host_notifier.h); kMissing is fewer rights
//
// KVM relies on the same rule: the host can fault a page in at any time, but
// removes a page only with a call of the MMU notifier.
//
// Consequences of a missing frame:
//   - A fault, a pre-fault, a read of guest memory and a walk of a guest's own
//     tables ask for the frame, without any lock, and start again. If the
//     lender has none, they fail: HOST_FRAME_MISSING.
//   - A fault of a write asks for the right to write to the page, and to the
//     guest's table where the Dirty bit has to be set. If the lender refuses,
//     the fault fails: HOST_READ_ONLY.
//   - A fault is not mapped by a huge page that contains such a frame, and no
//     such huge page is recovered: UniformLevel.
//   - A split has nothing to do: mapped memory has all of its frames.
//   - The auditor reports a leaf that maps such a frame (INV-4).
//   - Prefetching skips it.

#ifndef MMU_CORE_MEMORY_FRAME_LENDER_H_
#define MMU_CORE_MEMORY_FRAME_LENDER_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/level.h"

namespace mmu {

enum class FrameState : uint8_t { kMissing, kReadOnly, kReadWrite };

// Result of a request for a frame.
enum class FrameAnswer : uint8_t {
  kReady,   // present, with all the rights that it can have
  kNotYet,  // on its way: ask again
};

// Pages are numbered from the first page lent. Thread-safe.
class FrameLender {
 public:
  virtual ~FrameLender() = default;

  // StateOf and UniformLevel are called under mmu_lock and in RCU read
  // sections: they take leaf locks of their own at most, do not wait and
  // allocate nothing.
  virtual FrameState StateOf(uint64_t page) const = 0;
  // The largest level, at most `max`, whose block around `page` has all of its
  // frames, all in the same state; k4K if there is no larger one. A block is as
  // large as the level's pages and begins at a multiple of that size in host
  // addresses.
  virtual Level UniformLevel(uint64_t page, Level max) const = 0;

  // Copies memory from `offset` bytes after its start to `out`, up to the first
  // page whose frame is missing. Returns the number of bytes copied. Naturally
  // aligned words are read in one piece. Called as StateOf, with the same
  // demands. REQUIRES: inside the memory, whole words.
  virtual size_t Read(uint64_t offset, absl::Span<std::byte> out) const = 0;

  // Gets the page a frame, and for a write the right to write to it, if the
  // page can have that right at all: kReady may leave it read-only. May block
  // for some milliseconds only, so that the caller can be stopped, and then
  // returns kNotYet. If no frame can be had, returns an error whose message
  // says why. Called with no lock held, outside of guest mode and of RCU read
  // sections. The result may be out of date at once.
  virtual absl::StatusOr<FrameAnswer> MakePresent(uint64_t page,
                                                  AccessKind kind) = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_MEMORY_FRAME_LENDER_H_
