// One guest kernel on several vCPUs of a VM with the shadow MMU: the vCPUs
// share shadow pages, and edit the guest's tables that the others walk.

#include "mmu_core/guest/kernel/smp_guest.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/level.h"
#include "mmu_core/guest/guest_access.h"
#include "mmu_core/guest/kernel/guest_kernel.h"
#include "mmu_core/guest/virtual_workload.h"
#include "mmu_core/testing/dirty_log.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/run/guest_processor.h"
#include "mmu_core/vm/vcpu/parking_place.h"
#include "mmu_core/vm/vcpu/vcpu.h"
#include "mmu_core/vm/vm.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu::testing {
namespace {

using Cached = GuestKernelOptions::Cached;
using LargePages = GuestKernelOptions::LargePages;
using Writable = GuestKernel::Writable;

constexpr uint64_t kMemory = uint64_t{48} << 20;
constexpr uint64_t kPages = kMemory / kPageSize;
constexpr Gva kPage(0x40'0000);

std::unique_ptr<Vm> MakeSmpVm(int vcpus, Level host_page = Level::k4K) {
  VmConfig config;
  config.mmu = MmuMode::kShadow;
  config.format = EntryFormat::kNpt;
  config.root_levels = 5;
  config.vcpu_count = vcpus;
  config.memslots = {Slot(0, 0, kMemory, host_page)};
  return MakeVmFrom(config);
}

// A vCPU whose waits for other vCPUs are a function of the test.
class RelaxingCpu final : public GuestCpu {
 public:
  explicit RelaxingCpu(Vcpu& vcpu) : cpu_(vcpu) {}

  Outcome Access(Gva gva, int size_bytes, AccessKind kind, Privilege privilege,
                 uint64_t* word, GuestPageFault* fault) override {
    return cpu_.Access(gva, size_bytes, kind, privilege, word, fault);
  }
  void EnablePaging(const PagingGeometry& geometry, Gpa cr3) override {
    cpu_.EnablePaging(geometry, cr3);
  }
  void LoadCr3(Gpa cr3, Pcid pcid, Cr3Load how) override {
    cpu_.LoadCr3(cr3, pcid, how);
  }
  void Invlpg(Gva gva) override { cpu_.Invlpg(gva); }
  void InvalidatePcid(Invpcid what, Pcid pcid, Gva gva) override {
    cpu_.InvalidatePcid(what, pcid, gva);
  }
  bool Relax() override {
    on_relax();
    return true;
  }
  absl::Status status() const override { return cpu_.status(); }

  std::function<void()> on_relax;

 private:
  GuestProcessor cpu_;
};

std::string NameOf(const ::testing::TestParamInfo<GuestKernelOptions>& info) {
  std::string name(info.param.geometry.name);
  name.erase(std::remove(name.begin(), name.end(), '-'), name.end());
  return "Paging" + name +
         (info.param.large_pages == LargePages::kYes ? "Large" : "") +
         (info.param.cached == Cached::kInterrupt ? "Interrupt" : "");
}

const auto kAllOptions = ::testing::Values(
    GuestKernelOptions{PagingGeometry::k32Bit, LargePages::kNo},
    GuestKernelOptions{PagingGeometry::k32Bit, LargePages::kYes},
    GuestKernelOptions{PagingGeometry::kPae, LargePages::kNo},
    GuestKernelOptions{PagingGeometry::kPae, LargePages::kYes},
    GuestKernelOptions{PagingGeometry::k4Level, LargePages::kNo},
    GuestKernelOptions{PagingGeometry::k4Level, LargePages::kYes},
    GuestKernelOptions{PagingGeometry::k4Level, LargePages::kNo,
                       Cached::kInterrupt},
    GuestKernelOptions{PagingGeometry::k5Level, LargePages::kNo},
    GuestKernelOptions{PagingGeometry::k5Level, LargePages::kYes,
                       Cached::kInterrupt});

// Two vCPUs that act one after the other, on one thread.
class TwoVcpusTest : public ::testing::TestWithParam<GuestKernelOptions> {
 protected:
  TwoVcpusTest()
      : vm_(MakeSmpVm(2)),
        cpu_a_(*vm_->state().vcpus[0]),
        cpu_b_(*vm_->state().vcpus[1]),
        a_(cpu_a_, vm_->GuestSpace(), GetParam()),
        b_(cpu_b_, a_) {
    cpu_a_.on_relax = [this] { b_.TakeInterrupts(); };
    cpu_b_.on_relax = [this] { a_.TakeInterrupts(); };
    EXPECT_TRUE(a_.Boot().ok());
    EXPECT_TRUE(b_.Boot().ok());
  }
  ~TwoVcpusTest() override { EXPECT_EQ(AuditFindings(*vm_), ""); }

  static absl::Status Write(GuestKernel& kernel, uint64_t value) {
    return kernel.Access(kPage, AccessKind::kWrite, &value);
  }
  static uint64_t Read(GuestKernel& kernel) {
    uint64_t word = ~uint64_t{0};
    EXPECT_TRUE(kernel.Access(kPage, AccessKind::kRead, &word).ok());
    return word;
  }

  const std::unique_ptr<Vm> vm_;
  RelaxingCpu cpu_a_;
  RelaxingCpu cpu_b_;
  GuestKernel a_;
  GuestKernel b_;
};

INSTANTIATE_TEST_SUITE_P(Geometries, TwoVcpusTest, kAllOptions, NameOf);

TEST_P(TwoVcpusTest, AProtectedPageIsReadOnlyOnBoth) {
  ASSERT_TRUE(Write(a_, 1).ok());
  ASSERT_TRUE(Write(b_, 2).ok());
  ASSERT_TRUE(a_.Protect(kPage, kPageSize, Writable::kNo).ok());
  EXPECT_EQ(Write(b_, 3).code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(Write(a_, 3).code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(Read(a_), 2u);
  ASSERT_TRUE(b_.Protect(kPage, kPageSize, Writable::kYes).ok());
  ASSERT_TRUE(Write(a_, 4).ok());
  EXPECT_EQ(Read(b_), 4u);
}

TEST_P(TwoVcpusTest, AnUnmappedPageIsGoneOnBoth) {
  ASSERT_TRUE(Write(a_, 1).ok());
  EXPECT_EQ(Read(b_), 1u);
  ASSERT_TRUE(b_.Unmap(kPage, kPageSize).ok());
  EXPECT_EQ(Read(a_), 0u);
  EXPECT_EQ(Read(b_), 0u);
  // With its table, of which the shadow page goes, too.
  ASSERT_TRUE(Write(a_, 1).ok());
  ASSERT_TRUE(a_.Unmap(kPage, GetParam().geometry.LargePageBytes()).ok());
  EXPECT_EQ(Read(b_), 0u);
}

TEST_P(TwoVcpusTest, AForkSharesUntilEitherWrites) {
  ASSERT_TRUE(Write(b_, 1).ok());
  const auto child = a_.Fork();
  ASSERT_TRUE(child.ok());
  ASSERT_TRUE(Write(b_, 2).ok());
  EXPECT_EQ(Read(a_), 2u);
  ASSERT_TRUE(a_.SwitchTo(*child, Cr3Load::kKeep).ok());
  EXPECT_EQ(Read(a_), 1u);
  ASSERT_TRUE(Write(a_, 3).ok());
  EXPECT_EQ(Read(b_), 2u);
  ASSERT_TRUE(b_.SwitchTo(*child, Cr3Load::kKeep).ok());
  EXPECT_EQ(Read(b_), 3u);
}

TEST_P(TwoVcpusTest, AVcpuThatRanAnotherProcessFindsTheChange) {
  ASSERT_TRUE(Write(b_, 1).ok());
  const auto other = a_.CreateProcess();
  ASSERT_TRUE(other.ok());
  ASSERT_TRUE(b_.SwitchTo(*other, Cr3Load::kKeep).ok());
  EXPECT_EQ(Read(b_), 0u);
  ASSERT_TRUE(a_.Unmap(kPage, kPageSize).ok());
  ASSERT_TRUE(b_.SwitchTo(1, Cr3Load::kKeep).ok());
  EXPECT_EQ(Read(b_), 0u);
}

class SmpShadowTest : public ::testing::TestWithParam<GuestKernelOptions> {};

INSTANTIATE_TEST_SUITE_P(Geometries, SmpShadowTest, kAllOptions, NameOf);

// Both vCPUs run, and the VM is logged, cleared and recovered meanwhile.
TEST_P(SmpShadowTest, EveryReadIsRightWhileBothVcpusChangeTheMemory) {
  constexpr int kVcpus = 2;
  constexpr int kAccesses = 1'500;
  const bool large = GetParam().large_pages == LargePages::kYes;
  auto vm = MakeSmpVm(kVcpus, large ? Level::k2M : Level::k4K);
  SmpGuestOptions options;
  options.kernel = GetParam();
  options.cpus = kVcpus;
  options.processes = kVcpus + 2;
  options.pages = 200;
  options.accesses_per_switch = 32;
  options.accesses_per_fork = 200;
  options.accesses_per_unmap = 64;
  options.accesses_per_clear = 300;
  options.accesses_per_protect = 32;
  const auto guest = SmpGuest::Create(vm->GuestSpace(), options);
  ASSERT_TRUE(guest.ok()) << guest.status();
  std::vector<absl::Status> statuses(kVcpus);
  std::atomic<uint64_t> shootdowns = 0;
  std::atomic<int> to_start = kVcpus;
  std::atomic<int> running = kVcpus;
  const auto run = [&](int index) -> absl::Status {
    Vcpu& vcpu = *vm->state().vcpus[index];
    GuestProcessor cpu(vcpu);
    auto program = (*guest)->StartCpu(index, cpu);
    // Both begin when both are online. So each has to answer the other one.
    --to_start;
    if (!program.ok()) return program.status();
    while (to_start != 0) EXPECT_TRUE(cpu.Relax());
    std::mt19937_64 random(static_cast<uint64_t>(index));
    vcpu.EnterGuest();
    absl::Status status;
    for (int i = 1; i <= kAccesses && status.ok(); ++i) {
      const GuestAccess access = {
          .address_bytes = random() % ((*program)->program_pages() * kPageSize),
          .size_bytes = 8,
          .kind = static_cast<AccessKind>(random() % 3)};
      uint64_t word = static_cast<uint64_t>(i);
      status = (*program)->Access(access, &word);
    }
    vcpu.ExitGuest();
    if (status.ok()) status = (*program)->Verify();
    shootdowns += (*guest)->kernel(index).stats().shootdowns;
    return status;
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < kVcpus; ++i) {
    threads.emplace_back([&, i] {
      statuses[i] = run(i);
      --running;
    });
  }
  const auto log_for_a_while = [&vm]() -> absl::Status {
    if (absl::Status s = StartLog(*vm, {}, nullptr); !s.ok()) return s;
    for (int round = 0; round < 3; ++round) {
      uint64_t epoch = 0;
      const std::vector<uint64_t> dirty = SealAndList(*vm, 0, &epoch);
      const auto cleared = ClearAndDeliver(*vm, 0, epoch, 0, kPages,
                                           MaskOf(kPages, dirty), nullptr);
      if (!cleared.ok()) return cleared.status();
    }
    return StopLog(*vm, RecoverOnStop::kYes, Undelivered::kDiscard, nullptr)
        .status();
  };
  absl::Status logged;
  while (logged.ok() && running != 0) logged = log_for_a_while();
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(logged.ok()) << logged;
  for (const absl::Status& status : statuses)
    EXPECT_TRUE(status.ok()) << status;
  EXPECT_GT(shootdowns, 0u);
  EXPECT_EQ(AuditFindings(*vm), "");
}

// A place to park that a test opens and closes.
class TestParking final : public ParkingPlace {
 public:
  explicit TestParking(const Vcpu& vcpu) : vcpu_(vcpu) {}

  bool IsWanted() const override { return wanted_; }
  bool Park() override {
    std::unique_lock<std::mutex> lock(mu_);
    was_in_guest_ = was_in_guest_ || vcpu_.gate().in_guest();
    parked_ = true;
    changed_.notify_all();
    changed_.wait(lock, [this] { return !wanted_; });
    parked_ = false;
    return !stop_;
  }

  // Returns once the vCPU's thread is parked.
  void Close() {
    wanted_ = true;
    std::unique_lock<std::mutex> lock(mu_);
    changed_.wait(lock, [this] { return parked_; });
  }
  void Ask() { wanted_ = true; }
  void Open(bool stop = false) {
    const std::lock_guard<std::mutex> lock(mu_);
    stop_ = stop;
    wanted_ = false;
    changed_.notify_all();
  }
  bool was_in_guest() const { return was_in_guest_; }

 private:
  const Vcpu& vcpu_;
  std::atomic<bool> wanted_{false};
  std::mutex mu_;
  std::condition_variable changed_;
  bool parked_ = false;
  bool stop_ = false;
  bool was_in_guest_ = false;
};

// A waits for the answer of B, which a pause has caught already. The pause must
// catch A in its wait.
TEST(SmpPauseTest, AVcpuParksWhileItWaitsForAnother) {
  auto vm = MakeSmpVm(2);
  Vcpu& vcpu_a = *vm->state().vcpus[0];
  Vcpu& vcpu_b = *vm->state().vcpus[1];
  GuestProcessor cpu_a(vcpu_a);
  GuestProcessor cpu_b(vcpu_b);
  GuestKernel a(cpu_a, vm->GuestSpace(), {});
  GuestKernel b(cpu_b, a);
  ASSERT_TRUE(a.Boot().ok());
  ASSERT_TRUE(b.Boot().ok());
  uint64_t word = 1;
  ASSERT_TRUE(a.Access(kPage, AccessKind::kWrite, &word).ok());
  ASSERT_TRUE(b.Access(kPage, AccessKind::kRead, &word).ok());
  TestParking park_a(vcpu_a);
  TestParking park_b(vcpu_b);
  vcpu_a.set_parking(&park_a);
  vcpu_b.set_parking(&park_b);
  std::atomic<bool> done{false};
  std::thread thread_b([&] {
    while (!done) {
      if (park_b.IsWanted()) static_cast<void>(park_b.Park());
      uint64_t found = 0;
      EXPECT_TRUE(b.Access(kPage, AccessKind::kRead, &found).ok());
    }
  });
  park_b.Close();
  absl::Status unmapped;
  std::thread thread_a([&] {
    vcpu_a.EnterGuest();
    unmapped = a.Unmap(kPage, kPageSize);
    vcpu_a.ExitGuest();
  });
  park_a.Close();
  EXPECT_FALSE(park_a.was_in_guest());
  park_a.Open();
  park_b.Open();
  thread_a.join();
  EXPECT_TRUE(unmapped.ok()) << unmapped;
  done = true;
  thread_b.join();
  ASSERT_TRUE(b.Access(kPage, AccessKind::kRead, &word).ok());
  EXPECT_EQ(word, 0u);
  vcpu_a.set_parking(nullptr);
  vcpu_b.set_parking(nullptr);
}

TEST(SmpPauseTest, AVcpuThatIsToStopDoesNotWait) {
  auto vm = MakeSmpVm(1);
  Vcpu& vcpu = *vm->state().vcpus[0];
  GuestProcessor cpu(vcpu);
  TestParking parking(vcpu);
  EXPECT_TRUE(cpu.Relax());
  vcpu.set_parking(&parking);
  EXPECT_TRUE(cpu.Relax()) << "nobody asks it to park";
  parking.Ask();
  std::thread opener([&] {
    parking.Close();
    parking.Open(/*stop=*/true);
  });
  EXPECT_FALSE(cpu.Relax());
  opener.join();
  EXPECT_EQ(cpu.status().code(), absl::StatusCode::kCancelled);
  vcpu.set_parking(nullptr);
}

}  // namespace
}  // namespace mmu::testing
