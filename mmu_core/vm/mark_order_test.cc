// The moment at which a fault marks its page in the dirty log. A fast fault
// marks after it has made the entry writable, a slow fault before. In either
// case the other order would lose a write to a clear that comes in between
// (tdp/tdp_fault.cc).

#include <cstdint>
#include <memory>
#include <optional>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/address.h"
#include "mmu_core/memory/mark_dirty.h"
#include "mmu_core/memory/memslot.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu {
namespace {

using ::mmu::testing::MakeVm;
using ::mmu::testing::SealAndList;
using ::mmu::testing::Slot;
using ::mmu::testing::StartLog;
using ::mmu::testing::Write;
using ::testing::ElementsAre;

constexpr uint64_t kMiB = uint64_t{1} << 20;

// The VM under test, and whether its page was writable when it was marked.
const Vm* g_vm = nullptr;
std::optional<bool> g_writable_at_mark;

class MarkOrderTest : public ::testing::Test {
 protected:
  MarkOrderTest() { g_vm = vm_.get(); }
  ~MarkOrderTest() override {
    g_vm = nullptr;
    g_writable_at_mark.reset();
  }

  std::unique_ptr<Vm> vm_ = MakeVm({Slot(0, 0, 4 * kMiB)});
};

// Covers: PF-15
TEST_F(MarkOrderTest, AFastFaultMarksOnlyWhenThePageCanBeWritten) {
  Write(*vm_, 0x3000);
  ASSERT_TRUE(StartLog(*vm_, {}, nullptr).ok());
  Write(*vm_, 0x3000);
  ASSERT_EQ(vm_->VcpuStats()[0].pf_fast, 1u);
  EXPECT_EQ(g_writable_at_mark, true);
  EXPECT_THAT(SealAndList(*vm_, 0), ElementsAre(3));
}

// Covers: SPTE-16
TEST_F(MarkOrderTest, ASlowFaultMarksBeforeThePageCanBeWritten) {
  ASSERT_TRUE(StartLog(*vm_, {}, nullptr).ok());
  Write(*vm_, 0x3000);
  EXPECT_EQ(vm_->VcpuStats()[0].pf_fast, 0u);
  EXPECT_EQ(g_writable_at_mark, false);
  EXPECT_THAT(SealAndList(*vm_, 0), ElementsAre(3));
}

}  // namespace

bool ShouldDropDirtyMark(const Memslot&, Gfn gfn) {
  if (g_vm != nullptr) {
    g_writable_at_mark = testing::SpteOf(g_vm->state(), gfn).IsWritable();
  }
  return false;
}

}  // namespace mmu
