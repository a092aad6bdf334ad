// Who lends memory that a Backing does not own: the guest memory of another
// process, which that process goes on using (memory/backing.h).
//
// The frames of such memory come and go. A page may never have been touched, or
// its owner has given it back to the host, or it cannot be read at the moment.
// So each page has a state, and the lender is who knows it:
//
//   kMissing    there is no frame: nothing may be mapped, nothing can be read
//   kReadOnly   there is one, which may be read
//   kReadWrite  there is one, which may be read and written
//
//   more rights   at any time; MakePresent asks for it
//   fewer rights  only between the start and the end of an invalidation of the
//                 page (vm/slots/host_notifier.h), kMissing among them
//
// That is what KVM asks of the host: a page is faulted in whenever somebody
// wants it, but it does not go without a notifier's call.
//
// Where a frame is missing
//   a fault, a pre-fault, a read of guest memory and a walk of a guest's own
//     tables ask for it, without any lock, and start again; if the lender has
//     none, they fail: HOST_FRAME_MISSING
//   a fault is not mapped by a huge page that has such a frame in it, nor is
//   one
//     recovered: UniformLevel
//   a split has nothing to do: what is mapped has all of its frames
//   the auditor finds a leaf that maps it (INV-4)
//   prefetching passes it over

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

// What became of a request for a frame.
enum class FrameAnswer : uint8_t {
  kReady,   // it is there, with all the rights that it can have
  kNotYet,  // it is on its way: ask again
};

// Pages are counted from the first one lent. Thread-safe.
class FrameLender {
 public:
  virtual ~FrameLender() = default;

  // Both are called under mmu_lock and in RCU read sections: they take leaf
  // locks of their own at most, do not wait and allocate nothing.
  virtual FrameState StateOf(uint64_t page) const = 0;
  // The largest level, at most `max`, whose block around `page` is in one state
  // throughout, with all of its frames there; k4K if there is no larger one. A
  // block is as large as the level's pages and begins at a multiple of that in
  // host addresses.
  virtual Level UniformLevel(uint64_t page, Level max) const = 0;

  // Copies what is `offset` bytes from the start of the memory, up to the first
  // page whose frame is missing. How many bytes that was. Naturally aligned
  // words are read in one piece. Called as StateOf, with the same demands.
  // REQUIRES: inside the memory, whole words.
  virtual size_t Read(uint64_t offset, absl::Span<std::byte> out) const = 0;

  // Gets the page a frame, and for a write the right to write to it, if it can
  // have that at all: kReady may leave it read-only. May block, but not for
  // long, so that whoever asks can be stopped: after some milliseconds kNotYet
  // is the answer. An error, whose message says why, if there is none to be
  // had. Called with no lock held, outside of guest mode and of RCU read
  // sections; what was learned may be out of date at once.
  virtual absl::StatusOr<FrameAnswer> MakePresent(uint64_t page,
                                                  AccessKind kind) = 0;
};

}  // namespace mmu

#endif  // MMU_CORE_MEMORY_FRAME_LENDER_H_
