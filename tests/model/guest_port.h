// The vCPUs of a VM as the model's guest uses them: accesses by guest-physical
// address and through the guest's own tables, loads of CR3, entries of L2, and
// the instructions that invalidate translations. One thread runs all vCPUs in
// turn.
//
// A vCPU whose dirty ring is full waits until the rings are harvested and
// reset, which happens here at once.

#ifndef TESTS_MODEL_GUEST_PORT_H_
#define TESTS_MODEL_GUEST_PORT_H_

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "mmu_core/base/access.h"
#include "mmu_core/guest/hypervisor/l1_cpu.h"
#include "mmu_core/guest_paging/control_registers.h"
#include "mmu_core/vm/run/guest_processor.h"
#include "mmu_core/vm/run/l1_processor.h"
#include "mmu_core/vm/vcpu/access_outcome.h"
#include "mmu_core/vm/vm.h"
#include "tests/model/guest_format.h"
#include "tests/model/guest_layout.h"
#include "tests/model/model_config.h"

namespace mmu::testing {

// The end of an access through the guest's tables. A value.
struct UseOutcome {
  bool done = false;
  // !done: the #PF's error code, the exit qualification or EXITINFO1.
  uint64_t fault_code = 0;
};

// Thread-compatible. A failed access of the host ends up in error().
class GuestPort {
 public:
  GuestPort(Vm& vm, const ModelConfig& config);

  // The first error, as text; "" if there was none.
  const std::string& error() const { return error_; }

  // The first word of guest page `page`, without tables of the guest: with
  // kShadow through the kernel's direct map. kEmulated, which kShadow reports
  // as kDone: there is no memory to read or write.
  AccessOutcome Access(int vcpu, uint64_t page, AccessKind kind,
                       uint64_t* word);
  // A store of the guest's kernel, or of L1, to a table.
  void Store(int vcpu, uint64_t gpa_bytes, int size_bytes, uint64_t value);

  // The first word of a page through the tables of the space that the vCPU has
  // loaded.
  UseOutcome Use(int vcpu, uint64_t address, AccessKind kind,
                 Privilege privilege, uint64_t* word);

  // kShadow: switches paging on.
  void EnablePaging(int vcpu, int space, uint64_t root);
  enum class Flush : uint8_t { kNo, kYes };
  // Makes the vCPU use the tables at page `root`: a load of CR3, or an entry of
  // L2. kYes: and drops what it has cached of this space.
  void LoadSpace(int vcpu, int space, uint64_t root, Flush flush);
  int space(int vcpu) const { return spaces_[static_cast<size_t>(vcpu)]; }
  // INVLPG. REQUIRES: kShadow.
  void InvalidatePage(int vcpu, uint64_t address);
  // Drops what the vCPU has cached of all spaces. `roots` by space.
  void InvalidateAll(int vcpu, const std::array<uint64_t, kSpaces>& roots);

 private:
  AccessOutcome AccessByGpa(int vcpu, uint64_t gpa_bytes, AccessKind kind,
                            uint64_t* word);
  void EnterL2(int vcpu);
  bool MakeRingRoom();
  void Fail(const std::string& what);

  Vm& vm_;
  const ModelConfig config_;
  const GuestFormat format_;
  const bool shadow_;  // as opposed to a guest with a second stage
  std::vector<std::unique_ptr<GuestProcessor>> processors_;  // kShadow
  std::vector<std::unique_ptr<L1Processor>> hypervisors_;    // kNested
  std::vector<int> spaces_;
  std::vector<uint64_t> roots_;  // the top table that the vCPU has loaded
  std::vector<bool> in_l2_;
  std::string error_;
};

}  // namespace mmu::testing

#endif  // TESTS_MODEL_GUEST_PORT_H_
