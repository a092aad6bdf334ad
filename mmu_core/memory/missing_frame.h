// A frame of borrowed memory that is needed but missing. An RCU read section
// finds it missing; it is asked for outside of the section.
//
// A fault in KVM does the same: it lets the host fault the page in before it
// takes mmu_lock.
//
//   1. RCU read section: memslot found, frame missing. Note.
//   2. no section, no lock: Ask. The lender may block; the memslot may change,
//      and the frame may go again
//   3. RCU read section: all of 1 anew
//
// A fault may need several frames: those of a guest's page tables and that of
// the page. Each is asked for only once, and at most kMaxAsked are asked for.
// So a lender whose frames do not stay cannot hold up the caller, even if each
// frame that comes drives out another one. If a frame is still missing in 3,
// the guest's next try deals with it.

#ifndef MMU_CORE_MEMORY_MISSING_FRAME_H_
#define MMU_CORE_MEMORY_MISSING_FRAME_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/memory/backing.h"
#include "mmu_core/memory/invalidate_sequence.h"
#include "mmu_core/memory/memslot.h"

namespace mmu {

// FAILED_PRECONDITION HOST_FRAME_MISSING (EFAULT): the lender cannot provide a
// page for `gfn`; `why` says the reason.
absl::Status FrameMissingError(Gfn gfn, const std::string& why);

// Externally synchronised: belongs to one fault, or to one read.
class MissingFrame {
 public:
  // The tables of a guest's five levels, and the page.
  static constexpr size_t kMaxAsked = 6;

  MissingFrame() = default;
  MissingFrame(const MissingFrame&) = delete;
  MissingFrame& operator=(const MissingFrame&) = delete;

  // Returns whether `gfn` of `slot` should be asked for: the memory is
  // borrowed, and this object has asked neither for that page nor for kMaxAsked
  // others. If so, notes the page and its memory, and Ask must follow.
  // `sequence` is a snapshot of the VM's InvalidationGate that is older than
  // the look at the page's state; it does not matter for a read. REQUIRES:
  // slot.backing; slot.Contains(gfn).
  bool Note(const Memslot& slot, Gfn gfn, AccessKind kind, uint64_t sequence);
  bool noted() const { return backing_ != nullptr; }

  // Returns whether a write to `gfn` of `slot`, which was just found to be
  // read-only, is refused: the memory is owned, or the last page asked for is
  // this one, for a write, and has lost no right since. False: the page may get
  // the right, so the guest tries again. REQUIRES: as Note, which returned
  // false.
  bool Refused(const Memslot& slot, Gfn gfn,
               const InvalidationGate& invalidations) const;

  // Asks once for the page that was noted. Errors: FAILED_PRECONDITION
  // HOST_FRAME_MISSING (EFAULT). May block and is called under the same
  // conditions as FrameLender::MakePresent. REQUIRES: noted(), which is false
  // afterwards.
  absl::Status Ask();
  // The lender wants to be asked again. Valid only after Ask.
  bool not_yet() const { return not_yet_; }

 private:
  bool HasAsked(Gfn gfn) const;

  std::shared_ptr<const Backing> backing_;  // the memory of the noted page
  Hva hva_;
  Gfn gfn_;
  AccessKind kind_ = AccessKind::kRead;
  uint64_t sequence_ = 0;
  // Never longer than kMaxAsked, so it allocates nothing; and a fault that asks
  // for nothing, as nearly all do, writes none of it.
  absl::InlinedVector<Gfn, kMaxAsked> asked_;
  bool not_yet_ = false;
};

}  // namespace mmu

#endif  // MMU_CORE_MEMORY_MISSING_FRAME_H_
