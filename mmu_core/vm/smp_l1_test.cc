// An L1 hypervisor on two vCPUs of a real VM: several L2 guests that both vCPUs
// run, and two with page tables of their own, whose virtual processors move
// from one vCPU to the other.

#include <barrier>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gtest/gtest.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/level.h"
#include "mmu_core/guest/hypervisor/l1_hypervisor.h"
#include "mmu_core/guest/hypervisor/l2_cpu.h"
#include "mmu_core/guest/hypervisor/l2_kernel.h"
#include "mmu_core/guest/hypervisor/smp_l2_program.h"
#include "mmu_core/guest/kernel/guest_cpu.h"
#include "mmu_core/guest/kernel/guest_kernel_options.h"
#include "mmu_core/guest/kernel/paging_geometry.h"
#include "mmu_core/guest_paging/guest_walk.h"
#include "mmu_core/testing/vm_builder.h"
#include "mmu_core/vm/run/l1_processor.h"

namespace mmu::testing {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr int kVcpus = 2;

struct Case {
  std::string name;
  EntryFormat format = EntryFormat::kEpt;
  bool ad_bits = true;
  uint64_t shadow_page_limit = 0;
};

class SmpL1Test : public ::testing::TestWithParam<Case> {
 protected:
  SmpL1Test() {
    VmConfig config;
    config.mmu = MmuMode::kNested;
    config.format = GetParam().format;
    config.shadow_page_limit = GetParam().shadow_page_limit;
    config.vcpu_count = kVcpus;
    config.memslots = {Slot(0, 0, 32 * kMiB)};
    vm_ = MakeVmFrom(config);
    options_.hypervisor = {.tables = GetParam().format == EntryFormat::kEpt
                                         ? GuestTables::kEpt
                                         : GuestTables::kNpt,
                           .ad_bits = GetParam().ad_bits};
    options_.cpus = kVcpus;
    options_.guests = 5;
    options_.stride_bytes = 2 * kMiB;
    options_.other_guests = kVcpus;
    options_.other_pages = L2Kernel::kPages;
    options_.steps_per_promote = 0;
    shared_ = std::make_unique<SmpL2Shared>(vm_->GuestSpace(), options_);
    for (int i = 0; i < kVcpus; ++i) {
      cpus_.push_back(std::make_unique<L1Processor>(
          *vm_->state().vcpus[static_cast<size_t>(i)], Level::k512G));
      programs_.push_back(
          std::make_unique<SmpL2Program>(*cpus_.back(), *shared_, i));
    }
    EXPECT_TRUE(L1(0).Boot().ok());
  }

  // Boots the kernel of a guest, on the vCPU with the same number. One of them
  // has large pages.
  std::unique_ptr<L2Kernel> MakeKernel(size_t vcpu) {
    using LargePages = GuestKernelOptions::LargePages;
    absl::StatusOr<std::unique_ptr<L2Kernel>> kernel = L2Kernel::Start(
        L1(vcpu),
        {.guest = options_.guests + static_cast<int>(vcpu),
         .seed = vcpu + 1,
         .large_pages = vcpu == 1 ? LargePages::kYes : LargePages::kNo});
    EXPECT_TRUE(kernel.ok()) << kernel.status();
    L1(vcpu).Rest();
    return kernel.ok() ? *std::move(kernel) : nullptr;
  }
  static absl::Status Run(L2Kernel& kernel, int accesses) {
    absl::Status status;
    for (int i = 0; i < accesses && status.ok(); ++i) status = kernel.Step();
    return status;
  }

  L1Hypervisor& L1(size_t vcpu) { return programs_[vcpu]->hypervisor(); }
  // Runs fn(vcpu) on a thread for each vCPU.
  template <typename Fn>
  void OnEachVcpu(Fn fn) {
    std::vector<absl::Status> ends(kVcpus);
    std::vector<std::thread> threads;
    for (size_t i = 0; i < kVcpus; ++i) {
      threads.emplace_back([this, i, &ends, &fn] {
        Vcpu& vcpu = *vm_->state().vcpus[i];
        vcpu.EnterGuest();
        ends[i] = fn(i);
        L1(i).Rest();
        vcpu.ExitGuest();
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (const absl::Status& end : ends) EXPECT_TRUE(end.ok()) << end;
  }

  std::unique_ptr<Vm> vm_;
  SmpL2Options options_;
  std::unique_ptr<SmpL2Shared> shared_;
  std::vector<std::unique_ptr<L1Processor>> cpus_;
  std::vector<std::unique_ptr<SmpL2Program>> programs_;
};

INSTANTIATE_TEST_SUITE_P(
    Tables, SmpL1Test,
    ::testing::Values(Case{"Ept"},
                      Case{"EptFewPages", EntryFormat::kEpt, true, 64},
                      Case{"EptWithoutAccessedDirty", EntryFormat::kEpt, false},
                      Case{"Npt", EntryFormat::kNpt},
                      Case{"NptFewPages", EntryFormat::kNpt, true, 64}),
    [](const auto& row) { return row.param.name; });

TEST_P(SmpL1Test, AllGuestsReadWhatTheyWrote) {
  std::vector<std::unique_ptr<L2Kernel>> kernels;
  for (size_t i = 0; i < kVcpus; ++i) {
    kernels.push_back(MakeKernel(i));
    ASSERT_NE(kernels.back(), nullptr);
  }
  std::barrier round(kVcpus);
  OnEachVcpu([&](size_t vcpu) -> absl::Status {
    SmpL2Program& program = *programs_[vcpu];
    absl::Status status;
    for (size_t i = 0; i < 400; ++i) {
      // The kernel of this round. Its virtual processor is on this vCPU.
      L2Kernel& kernel = *kernels[(vcpu + i) % kVcpus];
      for (int step = 0; step < 20 && status.ok(); ++step) {
        status = program.Step();
      }
      if (status.ok()) status = Run(kernel, 5);
      kernel.MoveTo(L1(1 - vcpu));
      // The other vCPU does not wait for this one meanwhile.
      L1(vcpu).Rest();
      vm_->state().vcpus[vcpu]->ExitGuest();
      round.arrive_and_wait();
      vm_->state().vcpus[vcpu]->EnterGuest();
    }
    if (status.ok()) status = program.Verify();
    if (status.ok()) status = kernels[vcpu]->Verify();
    return status;
  });
  for (size_t i = 0; i < kVcpus; ++i) {
    EXPECT_GT(cpus_[i]->stats().missed_roots, 0u);
    EXPECT_GT(L1(i).stats().frees, 0u);
    EXPECT_GE(L1(i).stats().arrivals, 400u);
  }
  const VmStatsSnapshot stats = vm_->Stats();
  if (GetParam().shadow_page_limit != 0) {
    EXPECT_GT(stats.mmu_recycled, 0u);
  }
  EXPECT_EQ(AuditFindings(*vm_), "");
}

// Both vCPUs are driven by this thread.
TEST_P(SmpL1Test, WhatOneVcpuTookAwayIsGoneOnTheOther) {
  uint64_t word = 7;
  ASSERT_TRUE(L1(0).Access(Gpa(0), AccessKind::kWrite, &word).ok());
  const Gfn frame = L1(0).FrameOf(Gpa(0)).value();
  L1(1).Select(0);
  word = 0;
  ASSERT_TRUE(L1(1).Access(Gpa(0), AccessKind::kRead, &word).ok());
  EXPECT_EQ(word, 7u);
  L1(1).Rest();
  ASSERT_TRUE(L1(0).Unmap(Gpa(0), kPageSize).ok());
  EXPECT_EQ(shared_->l1.frames.references(frame), 0);
  ASSERT_TRUE(L1(1).Access(Gpa(0), AccessKind::kRead, &word).ok());
  EXPECT_EQ(word, 0u);
  EXPECT_EQ(L1(1).stats().invalidations, 1u);
  ASSERT_TRUE(L1(0).Access(Gpa(0), AccessKind::kRead, &word).ok());
  EXPECT_EQ(word, 0u);
  EXPECT_EQ(AuditFindings(*vm_), "");
}

// As above. Nothing but INVVPID, or a flush of the ASID, drops what the vCPU
// still has of the kernel's earlier time on it.
TEST_P(SmpL1Test, AKernelThatMovesFromVcpuToVcpuReadsWhatItWrote) {
  for (size_t first = 0; first < kVcpus; ++first) {
    const std::unique_ptr<L2Kernel> kernel = MakeKernel(first);
    ASSERT_NE(kernel, nullptr);
    for (size_t i = 1; i <= 300; ++i) {
      kernel->MoveTo(L1((first + i) % kVcpus));
      const absl::Status status = Run(*kernel, 40);
      ASSERT_TRUE(status.ok()) << status;
    }
    const absl::Status status = kernel->Verify();
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_EQ(kernel->kernel().stats().large_pages,
              first == 1 ? uint64_t{L2Kernel::kPrograms} : 0u);
    L1(first).Rest();
  }
  // Each kernel arrives 300 times, and once to boot.
  EXPECT_EQ(L1(0).stats().arrivals, 301u);
  EXPECT_EQ(L1(1).stats().arrivals, 301u);
  EXPECT_EQ(AuditFindings(*vm_), "");
}

// The processor finds no translation for the address, so it exits to L1.
TEST_P(SmpL1Test, AnAddressOutsideOfL2sMemoryIsAnError) {
  L2Cpu cpu(L1(0), options_.guests);
  uint64_t word = 0;
  GuestPageFault fault;
  EXPECT_EQ(cpu.Access(Gva(uint64_t{1} << 50), 8, AccessKind::kRead,
                       Privilege::kSupervisor, &word, &fault),
            GuestCpu::Outcome::kError)
      << "paging is off";
  EXPECT_TRUE(absl::IsInvalidArgument(cpu.status())) << cpu.status();
  EXPECT_EQ(AuditFindings(*vm_), "");
}

// L2's tables cannot name such an address (MAXPHYADDR is 46).
TEST_P(SmpL1Test, AnEntryWithAnImpossibleFrameIsAFaultOfL2) {
  constexpr Gpa kTables(0x10'0000);
  L2Cpu cpu(L1(0), options_.guests);
  L1(0).Select(options_.guests);
  // The first entry of each table leads to the next one.
  for (uint64_t level = 4; level >= 1; --level) {
    const Gpa table = kTables + (4 - level) * kPageSize;
    const uint64_t next =
        level > 1 ? table.value() + kPageSize : uint64_t{1} << 50;
    uint64_t entry = next | gpte::kPresent | gpte::kWrite | gpte::kUser;
    ASSERT_TRUE(L1(0).Access(table, AccessKind::kWrite, &entry).ok());
  }
  cpu.EnablePaging(PagingGeometry::k4Level, kTables);
  uint64_t word = 0;
  GuestPageFault fault;
  EXPECT_EQ(cpu.Access(Gva(0x18), 8, AccessKind::kRead, Privilege::kSupervisor,
                       &word, &fault),
            GuestCpu::Outcome::kFault);
  EXPECT_EQ(fault.error_code, kPferrPresent | kPferrReserved);
  EXPECT_TRUE(cpu.status().ok()) << cpu.status();
  EXPECT_EQ(AuditFindings(*vm_), "");
}

// As above. The TLBs keep the right to write until they are told.
TEST_P(SmpL1Test, ARightThatOneVcpuTookAwayIsGoneOnTheOther) {
  using Rights = L1Hypervisor::Rights;
  L1(1).Select(0);
  for (const Rights rights : {Rights::kRead, Rights::kReadExec}) {
    uint64_t word = 7;
    ASSERT_TRUE(L1(0).AccessGranting(Gpa(0), AccessKind::kWrite, &word).ok());
    ASSERT_TRUE(L1(1).Access(Gpa(0), AccessKind::kWrite, &word).ok());
    L1(1).Rest();
    const uint64_t exits = L1(1).stats().exits;
    const uint64_t invalidations = L1(1).stats().invalidations;
    ASSERT_TRUE(L1(0).Protect(Gpa(0), kPageSize, rights).ok());

    word = 8;
    EXPECT_TRUE(absl::IsPermissionDenied(
        L1(1).Access(Gpa(0), AccessKind::kWrite, &word)));
    EXPECT_EQ(L1(1).stats().exits, exits + 1);
    EXPECT_EQ(L1(1).stats().invalidations, invalidations + 1);
    ASSERT_TRUE(L1(1).Access(Gpa(0), AccessKind::kRead, &word).ok());
    EXPECT_EQ(word, 7u);
    L1(1).Rest();
    EXPECT_EQ(AuditFindings(*vm_), "");
  }
}

}  // namespace
}  // namespace mmu::testing
