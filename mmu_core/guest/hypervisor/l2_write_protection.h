// Whether an L2 page is read-only for certain, while several processors forbid
// and grant writes to it at the same time. All of them go on as they like: a
// page is taken as read-only only if nobody can have granted it anything since
// it was protected.

#ifndef MMU_CORE_GUEST_HYPERVISOR_L2_WRITE_PROTECTION_H_
#define MMU_CORE_GUEST_HYPERVISOR_L2_WRITE_PROTECTION_H_

#include <atomic>
#include <cstdint>
#include <optional>

namespace mmu {

// Thread-safe.
class L2WriteProtection {
 public:
  // Around all that may end in a page that can be written: a grant, and an
  // unmap, after which the next access maps the page anew.
  void BeginGrant() {
    // In this order: who finds the number 0 after a look at the state finds
    // the state changed, or this grant has not begun.
    grants_.fetch_add(1);
    uint64_t state = state_.load();
    while (!state_.compare_exchange_weak(state, (state | 1) + 1)) {
    }
  }
  void EndGrant() { grants_.fetch_sub(1); }

  // Before a page that is mapped is made read-only. Nullopt: it may be granted
  // at the same time, or is read-only.
  std::optional<uint64_t> BeginProtect() const {
    const uint64_t state = state_.load();
    if (IsReadOnly(state) || grants_.load() != 0) return std::nullopt;
    return state;
  }
  // When no processor can write to it any more. No effect after a grant.
  void EndProtect(uint64_t begun) {
    state_.compare_exchange_strong(begun, begun + 1);
  }

  // Before a write; and after it, whether the page was read-only all the time.
  uint64_t BeginWrite() const { return state_.load(); }
  bool WasReadOnly(uint64_t begun) const {
    return IsReadOnly(begun) && state_.load() == begun;
  }

 private:
  static bool IsReadOnly(uint64_t state) { return state % 2 == 1; }

  // Odd: read-only. Each change increments it.
  std::atomic<uint64_t> state_{0};
  std::atomic<uint64_t> grants_{0};  // that go on
};

}  // namespace mmu

#endif  // MMU_CORE_GUEST_HYPERVISOR_L2_WRITE_PROTECTION_H_
