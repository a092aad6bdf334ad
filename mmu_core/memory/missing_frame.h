// A frame of borrowed memory that somebody needs and that is not there: found
// to be missing in an RCU read section, asked for outside of it.
//
// As a fault of KVM's, which lets the host fault the page in before it takes
// mmu_lock:
//
//   1. RCU read section: memslot found, frame missing. Note.
//   2. no section, no lock: Ask. The lender may block; the memslot may change,
//      and the frame may go again
//   3. RCU read section: all of 1 anew
//
// Each is asked for once on the way, so that a lender whose frames do not stay
// holds nobody: what is missing in 3 the guest's next try finds out.

#ifndef MMU_CORE_MEMORY_MISSING_FRAME_H_
#define MMU_CORE_MEMORY_MISSING_FRAME_H_

#include <memory>

#include "absl/status/status.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/memory/backing.h"
#include "mmu_core/memory/memslot.h"

namespace mmu {

// Externally synchronised: belongs to one fault, or to one read.
class MissingFrame {
 public:
  MissingFrame() = default;
  MissingFrame(const MissingFrame&) = delete;
  MissingFrame& operator=(const MissingFrame&) = delete;

  // Whether `gfn` of `slot` is to be asked for: it is borrowed and was not
  // asked for by this. Then it is noted, with its memory, and Ask must follow.
  // REQUIRES: slot.backing; slot.Contains(gfn).
  bool Note(const Memslot& slot, Gfn gfn, AccessKind kind);
  bool noted() const { return backing_ != nullptr; }

  // Asks for what was noted, once. Errors: FAILED_PRECONDITION
  // HOST_FRAME_MISSING (EFAULT). May block, as FrameLender::MakePresent, with
  // whose demands this is called. REQUIRES: noted(), which it ends.
  absl::Status Ask();
  // The lender wants to be asked again; only after Ask.
  bool not_yet() const { return not_yet_; }

 private:
  std::shared_ptr<const Backing> backing_;  // of what is to be asked for
  Hva hva_;
  Gfn gfn_;
  AccessKind kind_ = AccessKind::kRead;
  bool asked_ = false;  // for gfn_
  bool not_yet_ = false;
};

}  // namespace mmu

#endif  // MMU_CORE_MEMORY_MISSING_FRAME_H_
