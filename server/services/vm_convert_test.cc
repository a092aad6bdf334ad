#include "server/services/vm_convert.h"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/dirty/dirty_log_types.h"
#include "mmu_core/testing/interleaving.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_config.h"
#include "server/base/wall_time.h"
#include "server/managed_vm.h"

namespace mmud {
namespace {

// What GetVm and ListVms answer is made while StartDirtyLog is in its middle.
TEST(VmConvertTest, AVmIsShownWhileItsDirtyLogIsBeingStarted) {
  mmu::VmConfig config;
  for (const uint32_t id : {3, 1}) {
    mmu::MemslotConfig slot;
    slot.slot = id;
    slot.gpa = mmu::Gpa(uint64_t{4 - id} << 20);
    slot.size_bytes = 1 << 20;
    config.memslots.push_back(slot);
  }
  ManagedVm vm("vms/shown", *mmu::Vm::Create(config),
               WallTime::FromUnixNanos(0), ManagedVm::MetricsLabel::kOwn);
  v1::Vm shown;
  mmu::testing::Interleaving threads;
  threads.Add("start", [&] {
    EXPECT_TRUE(vm.vm().StartDirtyLog(mmu::DirtyLogConfig(), nullptr).ok());
  });
  threads.Add("get", [&] { shown = ToProto(vm); });
  threads.RunTo("start", mmu::HookPoint::kFlagToProtect);
  threads.RunToEnd("get");
  threads.RunToEnd("start");
  ASSERT_EQ(shown.memslots_size(), 2);
  EXPECT_EQ(shown.memslots(0).slot(), 3);  // by address
  EXPECT_EQ(shown.memslots(1).slot(), 1);
  for (const v1::Memslot& slot : shown.memslots()) {
    EXPECT_EQ(slot.dirty_log().slot(), slot.slot());
    EXPECT_EQ(slot.dirty_log().state(), v1::DIRTY_LOG_STATE_ACTIVE);
    EXPECT_EQ(slot.dirty_log().open_epoch(), 1);
  }
  EXPECT_EQ(shown.memory_size_bytes(), 2 << 20);
  EXPECT_EQ(shown.etag(), EtagOf(vm));
}

TEST(VmConvertTest, TheLogOfASlotIsFoundAmongMany) {
  std::vector<mmu::DirtyLogInfo> logs;
  for (uint32_t slot = 1; slot < 40; slot += 2) {
    mmu::DirtyLogInfo log;
    log.slot = slot;
    logs.push_back(log);
  }
  for (uint32_t slot = 0; slot < 42; ++slot) {
    const mmu::DirtyLogInfo* const log = FindLog(logs, slot);
    ASSERT_EQ(log != nullptr, slot % 2 == 1 && slot < 40) << slot;
    if (log == nullptr) continue;
    EXPECT_EQ(log->slot, slot);
  }
}

}  // namespace
}  // namespace mmud
