// A port of KVM's arm64 page_fault_test: each kind of access, to memslots of
// each kind, with and without a dirty log and with the Access flag set or not,
// by granule. It takes the expected number of faults, and the log has exactly
// the expected pages. The original also has the processor walk a guest's
// stage-1 tables. This guest has stage 1 off, so a test makes the accesses of
// such a walk itself. The original waits for userfaultfd, too;
// borrowed_memory_test waits for missing memory.

#include <cstdint>
#include <memory>
#include <ostream>
#include <string>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/vcpu/stage2_vcpu.h"
#include "mmu_core/vm/vcpu/vcpu.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu {
namespace {

using ::mmu::testing::AuditFindings;
using ::mmu::testing::MakeVmFrom;
using ::mmu::testing::SealAndList;
using ::mmu::testing::Slot;
using ::mmu::testing::StartLog;

enum class Memory : uint8_t { kReadWrite, kReadOnly, kLogged };
enum class Flag : uint8_t { kSet, kAgedByFault, kAgedByHardware };

using Case = std::tuple<uint32_t, AccessKind, Memory, Flag>;

std::string NameOf(const Case& c) {
  const auto [granule, kind, memory, flag] = c;
  constexpr const char* kKinds[] = {"Read", "Write", "Exec"};
  constexpr const char* kMemories[] = {"ReadWrite", "ReadOnly", "Logged"};
  constexpr const char* kFlags[] = {"", "AgedByFault", "AgedByHardware"};
  return std::string(kKinds[static_cast<int>(kind)]) +
         kMemories[static_cast<int>(memory)] + kFlags[static_cast<int>(flag)] +
         std::to_string(granule / 1024) + "K";
}

class Stage2PageFaultTest : public ::testing::TestWithParam<Case> {
 protected:
  Stage2PageFaultTest() {
    const auto [granule, kind, memory, flag] = GetParam();
    kind_ = kind;
    memory_ = memory;
    flag_ = flag;
    granule_ = granule / kPageSize;
    VmConfig config;
    config.mmu = MmuMode::kStage2;
    config.stage2.granule_bytes = granule;
    if (flag == Flag::kAgedByHardware) {
      config.stage2.access_flag = Stage2Config::AccessFlag::kByHardware;
    }
    MemslotConfig slot = Slot(0, 0, kPages * kPageSize);
    if (memory == Memory::kReadOnly) {
      slot.mode = MemslotConfig::Mode::kReadOnly;
    }
    config.memslots = {slot};
    vm_ = MakeVmFrom(config);
    if (memory == Memory::kLogged) {
      EXPECT_TRUE(StartLog(*vm_).ok());
    }
  }

  // The faults of an access, which is done or emulated.
  uint64_t FaultsOf(uint64_t page, AccessKind kind, AccessOutcome expected) {
    const uint64_t before = vm_->Stats().vcpus.pf_taken;
    uint64_t word = 7;
    EXPECT_EQ(vm_->state().vcpus[0]->Access(ToGpa(Gfn(page)), kind, &word),
              expected);
    return vm_->Stats().vcpus.pf_taken - before;
  }
  uint64_t FaultsOf(AccessOutcome expected) {
    return FaultsOf(kPage, kind_, expected);
  }
  // Appends the pages that the log has after a write to `page`.
  void AppendGranuleOf(uint64_t page, std::vector<uint64_t>& pages) const {
    const uint64_t first = page / granule_ * granule_;
    for (uint64_t i = 0; i < granule_; ++i) pages.push_back(first + i);
  }

  static constexpr uint64_t kPages = 64;
  static constexpr uint64_t kTablePage = 5;  // of a stage-1 table
  static constexpr uint64_t kPage = 37;

  AccessKind kind_;
  Memory memory_;
  Flag flag_;
  uint64_t granule_;
  std::unique_ptr<Vm> vm_;
};

// Covers: TST-15
TEST_P(Stage2PageFaultTest, TakesTheExpectedFaultsAndMarksTheExpectedPages) {
  const bool write = kind_ == AccessKind::kWrite;
  const bool emulated = write && memory_ == Memory::kReadOnly;
  const AccessOutcome outcome =
      emulated ? AccessOutcome::kEmulated : AccessOutcome::kDone;
  EXPECT_EQ(FaultsOf(outcome), 1u);
  // A write to read-only memory leaves the guest each time.
  EXPECT_EQ(FaultsOf(outcome), emulated ? 1u : 0u);
  if (flag_ != Flag::kSet && !emulated) {
    EXPECT_EQ(
        vm_->Age(GfnRange::Of(Gfn(kPage), 1), AgeMode::kTestAndClear, nullptr)
            ->young_page_count,
        1u);
    vm_->state().vcpus[0]->stage2()->FlushAll();
    EXPECT_EQ(FaultsOf(outcome), flag_ == Flag::kAgedByFault ? 1u : 0u);
  }
  if (memory_ == Memory::kLogged) {
    std::vector<uint64_t> expected;
    if (write) AppendGranuleOf(kPage, expected);
    EXPECT_EQ(SealAndList(*vm_, 0), expected);
  }
  EXPECT_EQ(AuditFindings(*vm_), "");
}

INSTANTIATE_TEST_SUITE_P(
    All, Stage2PageFaultTest,
    ::testing::Combine(::testing::Values(4096u, 16384u, 65536u),
                       ::testing::Values(AccessKind::kRead, AccessKind::kWrite,
                                         AccessKind::kExec),
                       ::testing::Values(Memory::kReadWrite, Memory::kReadOnly,
                                         Memory::kLogged),
                       ::testing::Values(Flag::kSet, Flag::kAgedByFault,
                                         Flag::kAgedByHardware)),
    [](const auto& row) { return NameOf(row.param); });

class Stage1WalkTest : public Stage2PageFaultTest {};

// A walk of stage 1 reads a descriptor in the guest's table, and writes to it
// if it sets the Access flag there. To stage 2 these are accesses to the
// table's page, which come before the access to the page itself.
// Covers: TST-15
TEST_P(Stage1WalkTest, FaultsOnTheTablesPageFirst) {
  const bool write = kind_ == AccessKind::kWrite;
  EXPECT_EQ(FaultsOf(kTablePage, AccessKind::kRead, AccessOutcome::kDone), 1u);
  EXPECT_EQ(FaultsOf(AccessOutcome::kDone), 1u);
  // The second walk sets the flag. Without a log the page may be written
  // already.
  EXPECT_EQ(FaultsOf(kTablePage, AccessKind::kWrite, AccessOutcome::kDone),
            memory_ == Memory::kLogged ? 1u : 0u);
  EXPECT_EQ(FaultsOf(AccessOutcome::kDone), 0u);
  if (memory_ == Memory::kLogged) {
    std::vector<uint64_t> expected;
    AppendGranuleOf(kTablePage, expected);
    if (write) AppendGranuleOf(kPage, expected);
    EXPECT_EQ(SealAndList(*vm_, 0), expected);
  }
  EXPECT_EQ(AuditFindings(*vm_), "");
}

// A walk that would write to read-only memory is an abort in the guest, in
// which stage 2 has no part.
// The rows without AF are those of the other test: to stage 2 the access of a
// walk is one like any other.
INSTANTIATE_TEST_SUITE_P(
    All, Stage1WalkTest,
    ::testing::Combine(::testing::Values(4096u, 16384u, 65536u),
                       ::testing::Values(AccessKind::kRead, AccessKind::kWrite,
                                         AccessKind::kExec),
                       ::testing::Values(Memory::kReadWrite, Memory::kLogged),
                       ::testing::Values(Flag::kSet)),
    [](const auto& row) { return NameOf(row.param); });

}  // namespace
}  // namespace mmu
