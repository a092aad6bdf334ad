#include "mmu_core/memory/missing_frame.h"

#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "mmu_core/base/check.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/format.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/memory/frame_lender.h"
#include "mmu_core/memory/invalidate_sequence.h"
#include "mmu_core/sync/rcu.h"

namespace mmu {

absl::Status FrameMissingError(Gfn gfn, const std::string& why) {
  return MakeError(
      absl::StatusCode::kFailedPrecondition,
      {Reason::kHostFrameMissing, "", EFAULT},
      Format("the host has no page for gpa 0x%x, and the lender of the memory "
             "cannot provide one (%s); correct that, and try again",
             ToGpa(gfn).value(), why));
}

bool MissingFrame::HasAsked(Gfn gfn) const {
  return std::find(asked_.begin(), asked_.end(), gfn) != asked_.end();
}

bool MissingFrame::Note(const Memslot& slot, Gfn gfn, AccessKind kind,
                        uint64_t sequence) {
  MMU_DCHECK(!noted());
  if (!slot.backing->is_borrowed()) return false;
  if (asked_.size() == kMaxAsked || HasAsked(gfn)) return false;
  backing_ = slot.backing;
  hva_ = slot.HvaOf(gfn);
  gfn_ = gfn;
  kind_ = kind;
  sequence_ = sequence;
  return true;
}

// Only an invalidation takes the right to write away. An invalidation that did
// so after the answer is either still in progress, or has changed the sequence.
bool MissingFrame::Refused(const Memslot& slot, Gfn gfn,
                           const InvalidationGate& invalidations) const {
  MMU_DCHECK(!noted());
  if (!slot.backing->is_borrowed()) return true;
  // The count is read before the sequence, as in RetryNeeded.
  return !asked_.empty() && gfn_ == gfn && kind_ == AccessKind::kWrite &&
         !invalidations.MaybeInvalidating(gfn) &&
         invalidations.snapshot() == sequence_;
}

absl::Status MissingFrame::Ask() {
  MMU_DCHECK(noted() && !InRcuReadSection());
  const std::shared_ptr<const Backing> backing = std::move(backing_);
  asked_.push_back(gfn_);
  AtHook(HookPoint::kMissingToAsk);
  const absl::StatusOr<FrameAnswer> answer = backing->AskForFrame(hva_, kind_);
  if (!answer.ok()) {
    return FrameMissingError(gfn_, std::string(answer.status().message()));
  }
  not_yet_ = *answer == FrameAnswer::kNotYet;
  return absl::OkStatus();
}

}  // namespace mmu
