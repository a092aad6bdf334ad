#include "mmu_core/memory/missing_frame.h"

#include <algorithm>
#include <cerrno>
#include <cstddef>
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
#include "mmu_core/sync/rcu.h"

namespace mmu {

bool MissingFrame::HasAsked(Gfn gfn) const {
  const auto end = asked_.begin() + static_cast<ptrdiff_t>(asked_count_);
  return std::find(asked_.begin(), end, gfn) != end;
}

bool MissingFrame::Note(const Memslot& slot, Gfn gfn, AccessKind kind) {
  MMU_DCHECK(!noted());
  if (!slot.backing->is_borrowed()) return false;
  if (asked_count_ == kMaxAsked || HasAsked(gfn)) return false;
  backing_ = slot.backing;
  hva_ = slot.HvaOf(gfn);
  gfn_ = gfn;
  kind_ = kind;
  return true;
}

absl::Status MissingFrame::Ask() {
  MMU_DCHECK(noted() && !InRcuReadSection());
  const std::shared_ptr<const Backing> backing = std::move(backing_);
  asked_[asked_count_++] = gfn_;
  AtHook(HookPoint::kMissingToAsk);
  const absl::StatusOr<FrameAnswer> answer = backing->AskForFrame(hva_, kind_);
  if (!answer.ok()) {
    return MakeError(
        absl::StatusCode::kFailedPrecondition,
        {Reason::kHostFrameMissing, "", EFAULT},
        Format(
            "the host has no page for gpa 0x%x, and the lender of the memory "
            "cannot provide one (%s); correct that, and try again",
            ToGpa(gfn_).value(), std::string(answer.status().message())));
  }
  not_yet_ = *answer == FrameAnswer::kNotYet;
  return absl::OkStatus();
}

}  // namespace mmu
