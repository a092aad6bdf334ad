#include "mmu_core/guest/kernel/smp_guest.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/guest/guest_access.h"
#include "mmu_core/guest/kernel/fake_guest_cpu.h"

namespace mmu {
namespace {

using ::mmu::testing::FakeGuestCpu;

using Cached = GuestKernelOptions::Cached;
using LargePages = GuestKernelOptions::LargePages;

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kMemory = 48 * kMiB;
constexpr int kCpus = 3;

GpaSpace Space(uint64_t bytes = kMemory) {
  return *GpaSpace::Create({GfnRange::Of(Gfn(0), bytes / kPageSize)});
}

// A processor that leaves out some of its work, if it is told to.
class LazyCpu : public FakeGuestCpu {
 public:
  using FakeGuestCpu::FakeGuestCpu;
  void Invlpg(Gva gva) override {
    if (!ignores_invlpg) FakeGuestCpu::Invlpg(gva);
  }
  void LoadCr3(Gpa cr3, Pcid pcid, Cr3Load how) override {
    FakeGuestCpu::LoadCr3(cr3, pcid, ignores_flush ? Cr3Load::kKeep : how);
  }
  bool ignores_invlpg = false;
  bool ignores_flush = false;
};

// One guest on CPUs that make their accesses in turn.
class Guest {
 public:
  explicit Guest(SmpGuestOptions options) {
    options.cpus = kCpus;
    auto guest = SmpGuest::Create(Space(), options);
    EXPECT_TRUE(guest.ok()) << guest.status();
    guest_ = *std::move(guest);
    for (int i = 0; i < kCpus; ++i) {
      cpus_.push_back(i == 0 ? std::make_unique<LazyCpu>(kMemory)
                             : std::make_unique<LazyCpu>(*cpus_[0]));
      cpus_[i]->set_on_relax([this] {
        for (int j = 0; j < kCpus; ++j) guest_->kernel(j).TakeInterrupts();
        return true;
      });
      auto program = guest_->StartCpu(i, *cpus_[i]);
      EXPECT_TRUE(program.ok()) << program.status();
      programs_.push_back(*std::move(program));
    }
  }

  absl::Status Run(int accesses, uint64_t seed) {
    std::mt19937_64 random(seed);
    for (int i = 0; i < accesses; ++i) {
      const GuestAccess access = {
          .address_bytes = random() % (programs_[0]->program_pages() << 12),
          .size_bytes = 8,
          .kind = static_cast<AccessKind>(random() % 3)};
      uint64_t word = ++last_word_;
      VirtualWorkload& program = *programs_[random() % kCpus];
      if (absl::Status s = program.Access(access, &word); !s.ok()) return s;
    }
    return absl::OkStatus();
  }
  absl::Status Verify() {
    for (const auto& program : programs_) {
      if (absl::Status s = program->Verify(); !s.ok()) return s;
    }
    return absl::OkStatus();
  }

  LazyCpu& cpu(int i) { return *cpus_[i]; }
  const GuestKernel& kernel(int i) { return guest_->kernel(i); }

 private:
  std::vector<std::unique_ptr<LazyCpu>> cpus_;
  std::unique_ptr<SmpGuest> guest_;
  std::vector<std::unique_ptr<VirtualWorkload>> programs_;
  uint64_t last_word_ = 0;
};

SmpGuestOptions Busy(const GuestKernelOptions& kernel) {
  SmpGuestOptions options;
  options.kernel = kernel;
  options.processes = kCpus + 2;
  options.pages = 100;
  options.accesses_per_switch = 20;
  options.accesses_per_fork = 200;
  options.accesses_per_unmap = 50;
  options.accesses_per_clear = 500;
  options.accesses_per_protect = 20;
  return options;
}

class SmpGuestTest : public ::testing::TestWithParam<GuestKernelOptions> {};

INSTANTIATE_TEST_SUITE_P(
    Geometries, SmpGuestTest,
    ::testing::Values(
        GuestKernelOptions{PagingGeometry::k32Bit, LargePages::kNo},
        GuestKernelOptions{PagingGeometry::k32Bit, LargePages::kYes},
        GuestKernelOptions{PagingGeometry::kPae, LargePages::kNo},
        GuestKernelOptions{PagingGeometry::kPae, LargePages::kYes},
        GuestKernelOptions{PagingGeometry::k4Level, LargePages::kNo},
        GuestKernelOptions{PagingGeometry::k4Level, LargePages::kYes,
                           Cached::kInterrupt},
        GuestKernelOptions{PagingGeometry::k5Level, LargePages::kNo,
                           Cached::kInterrupt},
        GuestKernelOptions{PagingGeometry::k5Level, LargePages::kYes}),
    [](const auto& row) {
      std::string name(row.param.geometry.name);
      name.erase(std::remove(name.begin(), name.end(), '-'), name.end());
      return "Paging" + name +
             (row.param.large_pages == LargePages::kYes ? "Large" : "");
    });

TEST_P(SmpGuestTest, EveryReadIsRightWhileAllCpusChangeTheMemory) {
  Guest guest(Busy(GetParam()));
  const absl::Status status = guest.Run(9'000, 1);
  ASSERT_TRUE(status.ok()) << status;
  const absl::Status all = guest.Verify();
  ASSERT_TRUE(all.ok()) << all;
  for (int i = 0; i < kCpus; ++i) {
    const GuestKernelStats& stats = guest.kernel(i).stats();
    EXPECT_GT(stats.copies, 20u);
    EXPECT_GT(stats.context_switches, 50u);
    EXPECT_GT(stats.shootdowns, 20u);
    EXPECT_GT(guest.kernel(i).cpu_stats().interrupts, 20u);
  }
}

TEST_P(SmpGuestTest, ACpuThatForgetsTooLittleIsNoticed) {
  {
    Guest guest(Busy(GetParam()));
    guest.cpu(1).ignores_invlpg = true;
    EXPECT_EQ(guest.Run(30'000, 1).code(), absl::StatusCode::kDataLoss);
  }
  if (!GetParam().geometry.HasPcids()) return;
  Guest guest(Busy(GetParam()));
  guest.cpu(1).ignores_flush = true;
  EXPECT_EQ(guest.Run(30'000, 1).code(), absl::StatusCode::kDataLoss);
}

TEST(SmpGuestsTest, TooLittleMemoryIsRefused) {
  EXPECT_EQ(SmpGuest::Create(Space(10 * kPageSize), {}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(SmpGuest::Create(Space(), {.pages = 9000}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(SmpGuest::Create(Space(), {.cpus = 65}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(SmpGuest::Create(Space(), {.first_word = 511}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(SmpGuestsTest, OtherCpusDoNotStartIfTheFirstOneCannotBoot) {
  SmpGuestOptions options;
  const auto guest = SmpGuest::Create(Space(), options);
  ASSERT_TRUE(guest.ok());
  FakeGuestCpu first(kMemory);
  FakeGuestCpu second(first);
  first.FailAfter(5);
  second.set_on_relax([&] {
    EXPECT_EQ((*guest)->StartCpu(0, first).status().message(),
              "the host is out of memory");
    return true;
  });
  EXPECT_EQ((*guest)->StartCpu(1, second).status().code(),
            absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace mmu
