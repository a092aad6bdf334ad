// A lender of memory whose frames a test adds and takes away.

#ifndef MMU_CORE_TESTING_FAKE_LENDER_H_
#define MMU_CORE_TESTING_FAKE_LENDER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/level.h"
#include "mmu_core/base/mutex.h"
#include "mmu_core/memory/frame_lender.h"

namespace mmu::testing {

// Lends a mapping of its own, of zeroed pages, which begins at a multiple of 2
// MiB. All frames are missing at first. Thread-safe.
class FakeLender final : public FrameLender {
 public:
  explicit FakeLender(uint64_t pages);
  ~FakeLender() override;

  std::byte* address() const { return memory_; }
  uint64_t size_bytes() const;

  // Sets the state of pages [first, end) from now on. A page that becomes
  // kMissing loses its contents. Only a caller that invalidates the pages
  // meanwhile may take rights away.
  void Set(uint64_t first, uint64_t end, FrameState state);
  // Takes the page's frame away as the host does that swaps it out: the page is
  // kMissing, and its next frame has the same contents. For callers of Set.
  void SwapOut(uint64_t page);
  // Sets the state that a page gets when it is asked for: kReadWrite at first.
  // With kMissing, MakePresent reports the page as present, but it goes again
  // at once.
  void GiveOnDemand(FrameState state);
  // Answer: from now on MakePresent returns `answer`; kReady ends that. Fail:
  // from now on it fails with `why`; "" ends that.
  void Answer(FrameAnswer answer);
  void Fail(const std::string& why);
  // Sets a function that MakePresent runs before it answers, with no lock held.
  void OnAsk(std::function<void()> fn);
  // Sets a function that MakePresent runs before it returns, when the page has
  // its new state, with no lock held.
  void OnAnswer(std::function<void()> fn);

  // The pages that MakePresent was called for, in order.
  using Asked = std::pair<uint64_t, AccessKind>;
  std::vector<Asked> asked() const;

  FrameState StateOf(uint64_t page) const override;
  Level UniformLevel(uint64_t page, Level max) const override;
  size_t Read(uint64_t offset, absl::Span<std::byte> out) const override;
  absl::StatusOr<FrameAnswer> MakePresent(uint64_t page,
                                          AccessKind kind) override;

 private:
  void SetLocked(uint64_t page, FrameState state)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  std::byte* memory_ = nullptr;  // constant
  mutable Mutex mu_;             // innermost: nothing is acquired under it
  std::vector<FrameState> states_ ABSL_GUARDED_BY(mu_);
  FrameState on_demand_ ABSL_GUARDED_BY(mu_) = FrameState::kReadWrite;
  FrameAnswer answer_ ABSL_GUARDED_BY(mu_) = FrameAnswer::kReady;
  std::string failure_ ABSL_GUARDED_BY(mu_);
  std::function<void()> on_ask_ ABSL_GUARDED_BY(mu_);
  std::function<void()> on_answer_ ABSL_GUARDED_BY(mu_);
  std::vector<Asked> asked_ ABSL_GUARDED_BY(mu_);
};

}  // namespace mmu::testing

#endif  // MMU_CORE_TESTING_FAKE_LENDER_H_
