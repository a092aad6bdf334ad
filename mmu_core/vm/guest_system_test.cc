// Workloads in guests with their own page tables.

#include "mmu_core/vm/run/guest_system.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "mmu_core/base/error.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/guest/pattern.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/run/workload.h"

namespace mmu::testing {
namespace {

struct Setting {
  const char* name;
  MmuMode mmu;
  EntryFormat format;
  GuestPagingConfig paging;
};

class GuestWorkloadTest : public ::testing::TestWithParam<Setting> {
 protected:
  static VmConfig Config() {
    VmConfig config;
    config.mmu = GetParam().mmu;
    config.format = GetParam().format;
    config.guest_paging = GetParam().paging;
    if (config.guest_paging.mode == GuestPagingConfig::Mode::k5Level) {
      config.root_levels = 5;
    }
    config.vcpu_count = 2;
    config.memslots = {Slot(0, 0, uint64_t{64} << 20)};
    return config;
  }
  static WorkloadOptions Options(Vm& vm, int64_t count) {
    WorkloadOptions options;
    for (uint32_t i = 0; i < 2; ++i) {
      PatternSpec spec;
      spec.write_fraction = 0.6;
      spec.access_count = static_cast<uint64_t>(count);
      options.sources.push_back(MakePattern(spec, vm.GuestSpace(), i, 2));
    }
    return options;
  }
};

TEST_P(GuestWorkloadTest, RunsToItsEndAndOnceMore) {
  auto vm = MakeVmFrom(Config());
  for (int round = 0; round < 2; ++round) {
    ASSERT_TRUE(vm->StartWorkload(Options(*vm, 30000)).ok());
    ASSERT_TRUE(vm->WaitWorkload(absl::Minutes(2)));
    const auto progress = vm->Workload();
    ASSERT_TRUE(progress.ok());
    EXPECT_EQ(progress->state, WorkloadProgress::State::kDone)
        << progress->error;
  }
  EXPECT_GT(vm->state().shadow->pages().in_use(), 0u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// A boot writes to the guest's memory. So it must wait for paused vCPUs: a
// thread that pauses them relies on unchanged memory.
TEST_P(GuestWorkloadTest, BootsWhenItsVcpusMayRunAndNotBefore) {
  auto vm = MakeVmFrom(Config());
  vm->PauseVcpus();
  ASSERT_TRUE(vm->StartWorkload(Options(*vm, 100)).ok());
  vm->PauseVcpus();  // returns when both have parked
  const std::vector<std::byte> untouched(size_t{64} << 20);
  std::vector<std::byte> memory(untouched.size());
  ASSERT_TRUE(vm->ReadMemory(Gpa(0), absl::MakeSpan(memory)).ok());
  EXPECT_TRUE(memory == untouched);
  EXPECT_EQ(vm->Stats().vcpus.accesses, 0u);
}

// A running guest is lost when its memory is deleted or moved, whichever page
// or table it misses first. Nothing else is lost.
TEST_P(GuestWorkloadTest, EndsWhenItsMemoryGoes) {
  enum class How { kDelete, kMove };
  struct Case {
    size_t slot;
    How how;
  };
  for (const auto& [gone, how] : {Case{0, How::kDelete}, Case{1, How::kDelete},
                                  Case{0, How::kMove}, Case{1, How::kMove}}) {
    SCOPED_TRACE(absl::StrCat("slot ", gone,
                              how == How::kMove ? " moves" : " is deleted"));
    VmConfig config = Config();
    config.memslots = {Slot(0, 0, uint64_t{32} << 20),
                       Slot(1, uint64_t{64} << 20, uint64_t{32} << 20)};
    auto vm = MakeVmFrom(config);
    ASSERT_TRUE(vm->StartWorkload(Options(*vm, 0)).ok());
    // Waits until both vCPUs have booted and run.
    for (size_t vcpu = 0; vcpu < 2; ++vcpu) {
      while (vm->VcpuStats()[vcpu].accesses < 10000) {
        absl::SleepFor(absl::Milliseconds(1));
      }
    }
    MemslotConfig slot = config.memslots[gone];
    if (how == How::kDelete) {
      slot.size_bytes = 0;
    } else {
      slot.gpa = Gpa(uint64_t{256} << 20);
    }
    ASSERT_TRUE(vm->SetMemslot(slot).ok());
    // A guest without its own tables continues.
    if (GetParam().mmu != MmuMode::kTdpShadow) {
      EXPECT_TRUE(vm->WaitWorkload(absl::Minutes(2)));
      EXPECT_EQ(DetailOf(vm->Workload()->error).reason, Reason::kGuestLost)
          << vm->Workload()->error;
      const absl::optional<GuestLoss> loss = vm->guest_loss();
      ASSERT_TRUE(loss.has_value());
      EXPECT_FALSE(loss->message.empty());
      // The guest stays lost, although there is memory at that place again.
      ASSERT_TRUE(vm->SetMemslot(config.memslots[gone]).ok());
      ASSERT_TRUE(vm->StartWorkload(Options(*vm, 0)).ok());
      EXPECT_TRUE(vm->WaitWorkload(absl::Minutes(2)));
      EXPECT_EQ(DetailOf(vm->Workload()->error).reason, Reason::kGuestLost)
          << vm->Workload()->error;
    }
    vm->StopWorkload();
    EXPECT_EQ(AuditFindings(*vm), "");
  }
}

TEST(GuestSystemTest, TablesNeedMemoryWithContents) {
  VmConfig config;
  config.mmu = MmuMode::kNested;
  config.memslots = {
      Slot(0, 0, 64 << 20, Level::k4K, BackingKind::kMetadataOnly)};
  auto vm = MakeVmFrom(config);
  WorkloadOptions options;
  options.sources.push_back(MakePattern({}, vm->GuestSpace(), 0, 1));
  const absl::Status status = vm->StartWorkload(std::move(options));
  EXPECT_EQ(DetailOf(status).reason, Reason::kNoContents) << status;
}

constexpr GuestPagingConfig kLarge = {.large_pages =
                                          GuestPagingConfig::LargePages::kYes};
INSTANTIATE_TEST_SUITE_P(
    Guests, GuestWorkloadTest,
    ::testing::Values(
        Setting{"TwoLevel",
                MmuMode::kShadow,
                EntryFormat::kNpt,
                {.mode = GuestPagingConfig::Mode::k32Bit, .processes = 3}},
        Setting{"Pae",
                MmuMode::kShadow,
                EntryFormat::kNpt,
                {.mode = GuestPagingConfig::Mode::kPae, .processes = 3}},
        Setting{
            "FourLevel", MmuMode::kShadow, EntryFormat::kNpt, {.processes = 4}},
        Setting{"FourLevelLarge", MmuMode::kShadow, EntryFormat::kNpt, kLarge},
        Setting{"FiveLevel",
                MmuMode::kShadow,
                EntryFormat::kNpt,
                {.mode = GuestPagingConfig::Mode::k5Level}},
        Setting{"TdpShadow", MmuMode::kTdpShadow, EntryFormat::kEpt, {}},
        Setting{"NestedEpt", MmuMode::kNested, EntryFormat::kEpt, {}},
        Setting{"NestedEptLarge", MmuMode::kNested, EntryFormat::kEpt, kLarge},
        Setting{"NestedNpt", MmuMode::kNested, EntryFormat::kNpt, {}}),
    [](const auto& p) { return std::string(p.param.name); });

}  // namespace
}  // namespace mmu::testing
