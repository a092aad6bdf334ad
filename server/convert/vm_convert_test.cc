#include "server/convert/vm_convert.h"

#include <cstdint>
#include <string>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "absl/types/optional.h"
#include "gtest/gtest.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/hooks.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/dirty/dirty_log_calls.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/interleaving.h"
#include "mmu_core/vm/core/vm_config.h"
#include "mmu_core/vm/vm.h"
#include "mmud/v1/vm_service.pb.h"
#include "server/base/wall_time.h"
#include "server/control/managed_vm.h"
#include "server/control/shown_vm.h"

namespace mmud {
namespace {

v1::Vm Shown(const ManagedVm& vm, v1::VmView view) {
  return ToProto(ShowVm(vm, view == v1::VM_VIEW_FULL ? SlotLogs::kRead
                                                     : SlotLogs::kLeaveOut),
                 view);
}

// GetVm and ListVms answer while StartDirtyLog is in progress.
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
  threads.Add("start",
              [&] { EXPECT_TRUE(mmu::testing::StartLog(vm.vm()).ok()); });
  threads.Add("get", [&] { shown = Shown(vm, v1::VM_VIEW_FULL); });
  threads.RunTo("start", mmu::HookPoint::kFlagToProtect);
  threads.RunToEnd("get");
  threads.RunToEnd("start");
  const v1::Vm after = Shown(vm, v1::VM_VIEW_FULL);
  ASSERT_EQ(shown.memslots_size(), 2);
  EXPECT_EQ(shown.memslots(0).slot(), 3);  // by address
  EXPECT_EQ(shown.memslots(1).slot(), 1);
  for (const v1::Memslot& slot : shown.memslots()) {
    EXPECT_EQ(slot.dirty_log().slot(), slot.slot());
    EXPECT_EQ(slot.dirty_log().state(), v1::DIRTY_LOG_STATE_OFF)
        << "not all of the memory is watched yet";
  }
  for (const v1::Memslot& slot : after.memslots()) {
    EXPECT_EQ(slot.dirty_log().state(), v1::DIRTY_LOG_STATE_ACTIVE);
    EXPECT_EQ(slot.dirty_log().first_epoch(), 1);
  }
  EXPECT_EQ(shown.memory_size_bytes(), 2 << 20);
  EXPECT_EQ(shown.etag(), EtagOf(SettingsOf(vm)));
}

TEST(VmConvertTest, ABasicViewHasAllButTheSlots) {
  mmu::VmConfig config;
  config.memslots.push_back(
      {.slot = 0, .gpa = mmu::Gpa(0), .size_bytes = 1 << 20});
  ManagedVm vm("vms/shown", *mmu::Vm::Create(config),
               WallTime::FromUnixNanos(0), ManagedVm::MetricsLabel::kOwn,
               {{"owner", "tests"}});
  v1::Vm full = Shown(vm, v1::VM_VIEW_FULL);
  const v1::Vm basic = Shown(vm, v1::VM_VIEW_BASIC);
  EXPECT_EQ(full.memslots_size(), 1);
  EXPECT_EQ(full.labels().at("owner"), "tests");
  full.clear_memslots();
  EXPECT_EQ(basic.DebugString(), full.DebugString());
}

TEST(VmConvertTest, LabelsAreInTheEtag) {
  ManagedVm vm("vms/shown", *mmu::Vm::Create(mmu::VmConfig()),
               WallTime::FromUnixNanos(0), ManagedVm::MetricsLabel::kOwn);
  const std::string before = EtagOf(SettingsOf(vm));
  absl::MutexLock lock(&vm.slots_mu());
  vm.set_labels({{"a", "b"}});
  const std::string labelled = EtagOf(SettingsOf(vm));
  EXPECT_NE(labelled, before);
  vm.set_labels({{"a", "c"}});
  EXPECT_NE(EtagOf(SettingsOf(vm)), labelled);
  vm.set_labels({});
  EXPECT_EQ(EtagOf(SettingsOf(vm)), before);
}

TEST(VmConvertTest, ViewsHaveADefault) {
  EXPECT_EQ(ToView(v1::VM_VIEW_UNSPECIFIED, v1::VM_VIEW_BASIC).value(),
            v1::VM_VIEW_BASIC);
  EXPECT_EQ(ToView(v1::VM_VIEW_FULL, v1::VM_VIEW_BASIC).value(),
            v1::VM_VIEW_FULL);
  EXPECT_EQ(mmu::DetailOf(
                ToView(static_cast<v1::VmView>(9), v1::VM_VIEW_BASIC).status())
                .reason,
            mmu::Reason::kInvalidEnumValue);
}

TEST(VmConvertTest, OnlySlotsThatAreInTheLogHaveOne) {
  mmu::MemslotInfo slot;
  slot.config.slot = 3;
  mmu::SlotLogView log;
  log.state.slot = 3;
  log.state.sealed_page_count = 7;
  v1::SlotDirtyLog shown = ToProto(slot, "vms/a", log).dirty_log();
  EXPECT_EQ(shown.slot(), 3);
  EXPECT_EQ(shown.state(), v1::DIRTY_LOG_STATE_ACTIVE);
  EXPECT_EQ(shown.sealed_page_count(), 7);
  EXPECT_FALSE(shown.initially_set());
  log.state.joined = true;
  EXPECT_TRUE(ToProto(slot, "vms/a", log).dirty_log().initially_set());
  shown = ToProto(slot, "vms/a", absl::nullopt).dirty_log();
  EXPECT_EQ(shown.slot(), 3);
  EXPECT_EQ(shown.state(), v1::DIRTY_LOG_STATE_OFF);
  // A slot of another address space, which has ids of its own.
  slot.config.address_space = 1;
  EXPECT_EQ(ToProto(slot, "vms/a", log).dirty_log().state(),
            v1::DIRTY_LOG_STATE_OFF);
}

}  // namespace
}  // namespace mmud
