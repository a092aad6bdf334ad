// How a vCPU accesses a guest-physical page, and the results of a page fault.

#ifndef MMU_CORE_BASE_ACCESS_H_
#define MMU_CORE_BASE_ACCESS_H_

#include <cstdint>
#include <string_view>

namespace mmu {

enum class AccessKind : uint8_t { kRead = 0, kWrite = 1, kExec = 2 };
inline constexpr int kAccessKinds = 3;

// The privilege of an access, as the guest's own page tables distinguish it.
enum class Privilege : uint8_t {
  kUser,
  kSupervisor,
  // The processor's own access to a system structure such as the GDT: a
  // supervisor access at any CPL. SMAP applies even if RFLAGS.AC is set.
  kImplicitSupervisor,
};

// The outcome of a page fault, with KVM's names and numbers (PF-01). All values
// are non-negative; an error on the host's side is an absl::Status instead.
enum class FaultResult : uint8_t {
  kContinue = 0,        // internal: keep going
  kRetry = 1,           // re-enter the guest; the fault recurs if still needed
  kEmulate = 2,         // MMIO or a read-only slot: emulate the access
  kWriteProtected = 3,  // the gfn is shadow-protected
  kInvalid = 4,         // the fast path could not decide: take the slow path
  kFixed = 5,           // a mapping was installed or made wider
  kSpurious = 6,        // the mapping was already fine
};
inline constexpr int kFaultResults = 7;

std::string_view ToString(AccessKind kind);
std::string_view ToString(FaultResult result);

}  // namespace mmu

#endif  // MMU_CORE_BASE_ACCESS_H_
