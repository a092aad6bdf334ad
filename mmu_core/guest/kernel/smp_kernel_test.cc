// A guest's kernel on several CPUs. The processors of the test keep all that
// the architecture allows (fake_guest_cpu.h), so a test fails if the kernel
// leaves out the invalidation that the test is about.

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gtest/gtest.h"
#include "mmu_core/base/access.h"
#include "mmu_core/base/address.h"
#include "mmu_core/guest/gpa_space.h"
#include "mmu_core/guest/kernel/fake_guest_cpu.h"
#include "mmu_core/guest/kernel/guest_kernel.h"

namespace mmu {
namespace {

using ::mmu::testing::FakeGuestCpu;

using Cached = GuestKernelOptions::Cached;
using LargePages = GuestKernelOptions::LargePages;
using Writable = GuestKernel::Writable;

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kMemory = 24 * kMiB;
constexpr Gva kBase(0x40'0000);

Gva Page(uint64_t i) { return kBase + i * kPageSize; }

absl::Status Write(GuestKernel& kernel, Gva gva, uint64_t value) {
  return kernel.Access(gva, AccessKind::kWrite, &value);
}
uint64_t Read(GuestKernel& kernel, Gva gva) {
  uint64_t word = ~uint64_t{0};
  const absl::Status status = kernel.Access(gva, AccessKind::kRead, &word);
  EXPECT_TRUE(status.ok()) << status;
  return word;
}

// Three CPUs with one kernel. They act one after the other; while one waits,
// the others take their interrupts.
class Machine {
 public:
  static constexpr int kCpus = 3;

  explicit Machine(const GuestKernelOptions& options) {
    for (int i = 0; i < kCpus; ++i) {
      cpus_.push_back(i == 0 ? std::make_unique<FakeGuestCpu>(kMemory)
                             : std::make_unique<FakeGuestCpu>(*cpus_[0]));
      kernels_.push_back(
          i == 0 ? std::make_unique<GuestKernel>(*cpus_[0], Space(), options)
                 : std::make_unique<GuestKernel>(*cpus_[i], *kernels_[0]));
      cpus_[i]->set_on_relax([this] { return Relax(); });
      EXPECT_TRUE(kernels_[i]->Boot().ok());
    }
  }

  GuestKernel& kernel(int i) { return *kernels_[i]; }
  FakeGuestCpu& cpu(int i) { return *cpus_[i]; }

  // Called when a CPU waits, before the others take their interrupts.
  std::function<void()> on_wait;
  // Whether the others take their interrupts, though they do nothing else.
  bool answer = true;
  // If set, a CPU that waits is told to stop.
  bool stop = false;
  int waits = 0;

  // No CPU that is online can reach a frame that is free.
  void ExpectNothingFreeIsReachable() {
    for (int i = 0; i < kCpus; ++i) {
      if (kernels_[i]->running() == 0) continue;
      for (const Gfn gfn : cpus_[i]->ReachableTables()) {
        EXPECT_GT(kernels_[0]->frames().references(gfn), 0) << "table " << gfn;
      }
      for (const Gfn gfn : cpus_[i]->ReachableUserPages()) {
        EXPECT_GT(kernels_[0]->frames().references(gfn), 0) << "page " << gfn;
      }
    }
  }

 private:
  static GpaSpace Space() {
    return *GpaSpace::Create({GfnRange::Of(Gfn(0), kMemory / kPageSize)});
  }

  bool Relax() {
    ++waits;
    if (stop) return false;
    ExpectNothingFreeIsReachable();
    if (on_wait != nullptr) on_wait();
    for (const auto& kernel : kernels_) {
      if (answer) kernel->TakeInterrupts();
    }
    return true;
  }

  std::vector<std::unique_ptr<FakeGuestCpu>> cpus_;
  std::vector<std::unique_ptr<GuestKernel>> kernels_;
};

class SmpKernelTest : public ::testing::TestWithParam<GuestKernelOptions> {
 protected:
  SmpKernelTest()
      : machine_(GetParam()), a_(machine_.kernel(0)), b_(machine_.kernel(1)) {}
  ~SmpKernelTest() override { machine_.ExpectNothingFreeIsReachable(); }

  bool large() const { return GetParam().large_pages == LargePages::kYes; }
  bool has_pcids() const { return GetParam().geometry.HasPcids(); }
  bool compares() const { return GetParam().cached == Cached::kCompare; }
  uint64_t pages_per_region() const {
    return GetParam().geometry.LargePageBytes() / kPageSize;
  }
  // What CPU 1 can do with its caches alone, before it takes an interrupt.
  GuestCpu::Outcome AccessOfB(Gva gva, AccessKind kind, uint64_t* word) {
    GuestPageFault fault;
    return machine_.cpu(1).Access(gva, 8, kind, Privilege::kUser, word, &fault);
  }

  Machine machine_;
  GuestKernel& a_;
  GuestKernel& b_;
};

std::vector<GuestKernelOptions> AllOptions() {
  std::vector<GuestKernelOptions> all;
  for (const PagingGeometry& geometry :
       {PagingGeometry::k32Bit, PagingGeometry::kPae, PagingGeometry::k4Level,
        PagingGeometry::k5Level}) {
    for (const LargePages large : {LargePages::kNo, LargePages::kYes}) {
      all.push_back({.geometry = geometry, .large_pages = large});
      if (!geometry.HasPcids()) continue;
      all.push_back({.geometry = geometry,
                     .large_pages = large,
                     .cached = Cached::kInterrupt});
    }
  }
  return all;
}

std::string NameOf(const ::testing::TestParamInfo<GuestKernelOptions>& info) {
  std::string name(info.param.geometry.name);
  name.erase(std::remove(name.begin(), name.end(), '-'), name.end());
  return "Paging" + name +
         (info.param.large_pages == LargePages::kYes ? "Large" : "") +
         (info.param.cached == Cached::kInterrupt ? "Interrupt" : "");
}

INSTANTIATE_TEST_SUITE_P(Geometries, SmpKernelTest,
                         ::testing::ValuesIn(AllOptions()), NameOf);

TEST_P(SmpKernelTest, CpusShareTheMemoryOfAProcess) {
  ASSERT_TRUE(Write(a_, Page(0), 1).ok());
  EXPECT_EQ(Read(b_, Page(0)), 1u);
  ASSERT_TRUE(Write(b_, Page(0), 2).ok());
  EXPECT_EQ(Read(a_, Page(0)), 2u);
  EXPECT_EQ(a_.stats().demand_faults + b_.stats().demand_faults, 1u);
  EXPECT_EQ(machine_.waits, 0) << "nothing is invalidated for a new page";
}

// With PAE paging, each CPU has to load the PDPTE that another one has made.
TEST_P(SmpKernelTest, CpusFindPagesBelowNewTables) {
  const Gva last = GetParam().geometry.user_end - kPageSize;
  EXPECT_EQ(Read(b_, Page(0)), 0u);
  ASSERT_TRUE(Write(a_, last, 9).ok());
  EXPECT_EQ(Read(b_, last), 9u);
}

TEST_P(SmpKernelTest, AnUnmappedPageIsGoneOnAllCpus) {
  ASSERT_TRUE(Write(a_, Page(0), 1).ok());
  EXPECT_EQ(Read(b_, Page(0)), 1u);
  ASSERT_TRUE(a_.Unmap(Page(0), kPageSize).ok());
  EXPECT_EQ(Read(a_, Page(0)), 0u);
  EXPECT_EQ(Read(b_, Page(0)), 0u);
  EXPECT_GT(b_.cpu_stats().interrupts, 0u);
}

TEST_P(SmpKernelTest, AProtectedPageIsReadOnlyOnAllCpus) {
  for (int writer : {0, 1}) {
    ASSERT_TRUE(Write(machine_.kernel(writer), Page(0), 1).ok());
  }
  ASSERT_TRUE(a_.Protect(Page(0), kPageSize, Writable::kNo).ok());
  for (int writer : {0, 1}) {
    EXPECT_EQ(Write(machine_.kernel(writer), Page(0), 2).code(),
              absl::StatusCode::kPermissionDenied);
  }
  const int waits = machine_.waits;
  ASSERT_TRUE(b_.Protect(Page(0), kPageSize, Writable::kYes).ok());
  EXPECT_EQ(machine_.waits, waits) << "a new right needs no invalidation";
  EXPECT_TRUE(Write(a_, Page(0), 3).ok());
  EXPECT_EQ(Read(b_, Page(0)), 3u);
}

TEST_P(SmpKernelTest, AForkTakesTheRightToWriteFromAllCpus) {
  ASSERT_TRUE(Write(b_, Page(0), 1).ok());
  ASSERT_TRUE(Write(a_, Page(1), 1).ok());
  const absl::StatusOr<int> child = a_.Fork();
  ASSERT_TRUE(child.ok());
  ASSERT_TRUE(Write(b_, Page(0), 2).ok());
  ASSERT_TRUE(Write(a_, Page(1), 2).ok());
  ASSERT_TRUE(a_.SwitchTo(*child, Cr3Load::kKeep).ok());
  EXPECT_EQ(Read(a_, Page(0)), 1u);
  EXPECT_EQ(Read(a_, Page(1)), 1u);
}

// Until a CPU has answered it may write, and the child sees that.
TEST_P(SmpKernelTest, WritesUntilTheAnswerBelongToBothProcesses) {
  ASSERT_TRUE(Write(b_, Page(0), 1).ok());
  machine_.on_wait = [&] {
    uint64_t word = 2;
    EXPECT_EQ(AccessOfB(Page(0), AccessKind::kWrite, &word),
              GuestCpu::Outcome::kDone);
  };
  const absl::StatusOr<int> child = a_.Fork();
  ASSERT_TRUE(child.ok());
  machine_.on_wait = nullptr;
  ASSERT_TRUE(Write(b_, Page(0), 3).ok());
  ASSERT_TRUE(a_.SwitchTo(*child, Cr3Load::kFlush).ok());
  EXPECT_EQ(Read(a_, Page(0)), 2u);
  EXPECT_EQ(Read(b_, Page(0)), 3u);
}

TEST_P(SmpKernelTest, ACopyReplacesThePageOnAllCpus) {
  ASSERT_TRUE(Write(a_, Page(0), 1).ok());
  ASSERT_TRUE(a_.Fork().ok());
  EXPECT_EQ(Read(b_, Page(0)), 1u);
  // No CPU may read the old page while another can write to the new one. So
  // there is no page while they are told (the last time; a large page is split
  // before).
  auto outcome = GuestCpu::Outcome::kDone;
  machine_.on_wait = [&] {
    uint64_t word = 0;
    machine_.kernel(2).TakeInterrupts();
    GuestPageFault fault;
    outcome = machine_.cpu(2).Access(Page(0), 8, AccessKind::kRead,
                                     Privilege::kUser, &word, &fault);
  };
  ASSERT_TRUE(Write(a_, Page(0), 2).ok());
  EXPECT_EQ(outcome, GuestCpu::Outcome::kFault);
  EXPECT_EQ(a_.stats().copies, 1u);
  EXPECT_EQ(Read(b_, Page(0)), 2u);
}

TEST_P(SmpKernelTest, ASplitLargePageIsForgottenByAllCpus) {
  if (!large()) GTEST_SKIP() << "needs large pages";
  ASSERT_TRUE(Write(a_, Page(0), 1).ok());
  ASSERT_TRUE(Write(b_, Page(0), 1).ok());
  EXPECT_TRUE(machine_.cpu(1).CachesLarge(Page(0)));
  // No page loses anything, but the large page becomes small ones.
  ASSERT_TRUE(a_.Protect(Page(0), kPageSize, Writable::kYes).ok());
  EXPECT_EQ(a_.stats().large_splits, 1u);
  EXPECT_FALSE(machine_.cpu(0).CachesLarge(Page(0)));
  EXPECT_FALSE(machine_.cpu(1).CachesLarge(Page(0)));
  EXPECT_EQ(Read(b_, Page(0)), 1u);
}

TEST_P(SmpKernelTest, AWholeLargePageIsUnmappedAtOnce) {
  if (!large()) GTEST_SKIP() << "needs large pages";
  const uint64_t frames = a_.frames().frames_in_use();
  ASSERT_TRUE(Write(a_, Page(0), 1).ok());
  ASSERT_TRUE(Write(b_, Page(1), 1).ok());
  ASSERT_TRUE(a_.Unmap(Page(0), GetParam().geometry.LargePageBytes()).ok());
  EXPECT_EQ(a_.stats().large_splits, 0u);
  EXPECT_EQ(Read(b_, Page(1)), 0u);
  EXPECT_LE(a_.frames().frames_in_use(), frames + pages_per_region() + 4);
}

// The last table goes although none of its entries is present. CPUs may have
// cached the entry that points to it.
TEST_P(SmpKernelTest, AnEmptyTableIsForgottenBeforeItIsFreed) {
  if (large()) GTEST_SKIP() << "needs a table of small pages";
  ASSERT_TRUE(Write(a_, Page(0), 1).ok());
  ASSERT_TRUE(a_.Unmap(Page(0), kPageSize).ok());
  for (int i = 0; i < Machine::kCpus; ++i) machine_.cpu(i).Prefetch(Page(0));
  const uint64_t invlpgs = a_.cpu_stats().invlpgs;
  ASSERT_TRUE(a_.Unmap(kBase, GetParam().geometry.LargePageBytes()).ok());
  EXPECT_EQ(a_.stats().tables_freed, 1u);
  EXPECT_EQ(a_.cpu_stats().invlpgs, invlpgs + 1);
  machine_.ExpectNothingFreeIsReachable();
  // The frame of the table gets other contents, among them what looks like an
  // entry.
  const Gva other = GetParam().geometry.user_end - kPageSize;
  for (uint64_t i = 0; i < 16; ++i) {
    ASSERT_TRUE(Write(a_, other - i * kPageSize, 0x7).ok());
  }
  EXPECT_EQ(Read(b_, Page(0)), 0u);
}

TEST_P(SmpKernelTest, ManyPagesAreForgottenByOneLoadOfCr3) {
  constexpr uint64_t kMany = TlbInvalidation::kMaxPages + 1;
  for (uint64_t i = 0; i < kMany; ++i) {
    ASSERT_TRUE(Write(a_, Page(i), i + 1).ok());
    EXPECT_EQ(Read(b_, Page(i)), i + 1);
  }
  // Afterwards all pages are small.
  ASSERT_TRUE(a_.Protect(Page(0), kPageSize, Writable::kYes).ok());
  const KernelCpuStats before = b_.cpu_stats();
  ASSERT_TRUE(a_.Unmap(Page(0), kMany * kPageSize).ok());
  EXPECT_EQ(b_.cpu_stats().flushes, before.flushes + 1);
  EXPECT_EQ(b_.cpu_stats().invlpgs, before.invlpgs);
  for (uint64_t i = 0; i < kMany; ++i) EXPECT_EQ(Read(b_, Page(i)), 0u);
}

// B runs another process, and has the first one in its caches.
class CachedContextTest : public SmpKernelTest {
 protected:
  void LetBLeave() {
    const absl::StatusOr<int> other = a_.CreateProcess();
    ASSERT_TRUE(other.ok());
    ASSERT_TRUE(b_.SwitchTo(*other, Cr3Load::kKeep).ok());
    before_ = b_.cpu_stats();
  }
  void LetBReturn() { ASSERT_TRUE(b_.SwitchTo(1, Cr3Load::kKeep).ok()); }

  KernelCpuStats before_;
};

INSTANTIATE_TEST_SUITE_P(Geometries, CachedContextTest,
                         ::testing::ValuesIn(AllOptions()), NameOf);

TEST_P(CachedContextTest, APageIsForgottenBeforeTheProcessRunsAgain) {
  ASSERT_TRUE(Write(b_, Page(0), 1).ok());
  ASSERT_TRUE(Write(b_, Page(1), 2).ok());
  LetBLeave();
  ASSERT_TRUE(a_.Unmap(Page(0), kPageSize).ok());
  LetBReturn();
  EXPECT_EQ(Read(b_, Page(0)), 0u);
  EXPECT_EQ(Read(b_, Page(1)), 2u);
  const KernelCpuStats after = b_.cpu_stats();
  if (!has_pcids()) {
    EXPECT_EQ(after.interrupts, before_.interrupts);
  } else if (compares()) {
    EXPECT_EQ(after.interrupts, before_.interrupts);
    EXPECT_EQ(after.flushes, before_.flushes + 1);
  } else {
    EXPECT_GT(after.invpcids, before_.invpcids);
    EXPECT_EQ(after.flushes, before_.flushes) << "it forgets only the page";
  }
}

TEST_P(CachedContextTest, AForkIsNoticedBeforeTheProcessRunsAgain) {
  ASSERT_TRUE(Write(b_, Page(0), 1).ok());
  LetBLeave();
  const absl::StatusOr<int> child = a_.Fork();
  ASSERT_TRUE(child.ok());
  LetBReturn();
  ASSERT_TRUE(Write(b_, Page(0), 2).ok());
  ASSERT_TRUE(a_.SwitchTo(*child, Cr3Load::kKeep).ok());
  EXPECT_EQ(Read(a_, Page(0)), 1u);
}

TEST_P(CachedContextTest, WhatIsNotStaleIsKept) {
  ASSERT_TRUE(Write(b_, Page(0), 1).ok());
  LetBLeave();
  LetBReturn();
  const uint64_t flushes = b_.cpu_stats().flushes - before_.flushes;
  EXPECT_EQ(flushes, has_pcids() ? 0u : 1u);
  EXPECT_EQ(Read(b_, Page(0)), 1u);
}

TEST_P(SmpKernelTest, APcidIsUsedAgainOnlyAfterEverythingWasDropped) {
  std::vector<int> processes = {1};
  ASSERT_TRUE(Write(a_, Page(0), 1).ok());
  for (int i = 0; i < 3 * KernelCpu::kPcids; ++i) {
    const absl::StatusOr<int> process = a_.CreateProcess();
    ASSERT_TRUE(process.ok());
    ASSERT_TRUE(a_.SwitchTo(*process, Cr3Load::kKeep).ok());
    ASSERT_EQ(Read(a_, Page(0)), 0u);
    ASSERT_TRUE(Write(a_, Page(0), static_cast<uint64_t>(*process)).ok());
    processes.push_back(*process);
    // Half of them end. New ones get their tables.
    if (i % 2 == 0) continue;
    ASSERT_TRUE(a_.SwitchTo(1, Cr3Load::kKeep).ok());
    ASSERT_TRUE(a_.Exit(*process).ok());
    processes.pop_back();
  }
  for (int round = 0; round < 2; ++round) {
    for (const int process : processes) {
      ASSERT_TRUE(a_.SwitchTo(process, Cr3Load::kKeep).ok());
      EXPECT_EQ(Read(a_, Page(0)), static_cast<uint64_t>(process));
    }
  }
}

TEST_P(SmpKernelTest, AProcessThatRunsSomewhereCannotExit) {
  const absl::StatusOr<int> other = a_.CreateProcess();
  ASSERT_TRUE(other.ok());
  ASSERT_TRUE(b_.SwitchTo(*other, Cr3Load::kKeep).ok());
  EXPECT_EQ(a_.Exit(*other).code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(b_.SwitchTo(1, Cr3Load::kKeep).ok());
  EXPECT_TRUE(a_.Exit(*other).ok());
}

TEST_P(SmpKernelTest, AProgramAnswersBeforeItsNextAccess) {
  ASSERT_TRUE(Write(a_, Page(0), 1).ok());
  EXPECT_EQ(Read(b_, Page(0)), 1u);
  ASSERT_TRUE(a_.Protect(Page(0), kPageSize, Writable::kYes).ok());  // small
  EXPECT_EQ(Read(b_, Page(1)), 0u);
  EXPECT_EQ(Read(machine_.kernel(2), Page(1)), 0u);
  machine_.answer = false;
  machine_.on_wait = [&] {
    if (machine_.waits > 10) machine_.stop = true;
    EXPECT_EQ(Read(b_, Page(1)), 0u);
    EXPECT_EQ(Read(machine_.kernel(2), Page(1)), 0u);
  };
  EXPECT_TRUE(a_.Unmap(Page(0), kPageSize).ok());
}

TEST_P(SmpKernelTest, ACpuThatWaitsForTheKernelAnswers) {
  ASSERT_TRUE(Write(a_, Page(0), 1).ok());
  ASSERT_TRUE(a_.Protect(Page(0), kPageSize, Writable::kYes).ok());  // small
  ASSERT_TRUE(Write(b_, Page(0), 1).ok());
  // In the middle of A's shootdown, B enters the kernel. It cannot get the
  // lock, and is told to stop in its wait.
  bool entered = false;
  machine_.on_wait = [&] {
    if (std::exchange(entered, true)) return;
    machine_.stop = true;
    EXPECT_EQ(b_.Unmap(Page(1), kPageSize).code(),
              absl::StatusCode::kCancelled);
    machine_.stop = false;
    uint64_t word = 0;
    EXPECT_EQ(AccessOfB(Page(0), AccessKind::kRead, &word),
              GuestCpu::Outcome::kFault)
        << "it has answered";
  };
  EXPECT_TRUE(a_.Unmap(Page(0), kPageSize).ok());
  EXPECT_TRUE(entered);
}

TEST_P(SmpKernelTest, AGuestThatStopsInAShootdownIsLost) {
  ASSERT_TRUE(Write(a_, Page(0), 1).ok());
  ASSERT_TRUE(Write(b_, Page(0), 1).ok());
  machine_.stop = true;
  EXPECT_EQ(a_.Unmap(Page(0), kPageSize).code(), absl::StatusCode::kCancelled);
  machine_.stop = false;
  EXPECT_EQ(b_.Unmap(Page(1), kPageSize).message(), "the guest is to stop");
  for (int i = 0; i < Machine::kCpus; ++i) machine_.kernel(i).GoOffline();
}

TEST_P(SmpKernelTest, NobodyWaitsForACpuThatIsOffline) {
  ASSERT_TRUE(Write(a_, Page(0), 1).ok());
  ASSERT_TRUE(Write(b_, Page(0), 1).ok());
  b_.GoOffline();
  machine_.kernel(2).GoOffline();
  ASSERT_TRUE(a_.Unmap(Page(0), kPageSize).ok());
  EXPECT_EQ(machine_.waits, 0);
  uint64_t word = 0;
  EXPECT_EQ(b_.Access(Page(0), AccessKind::kRead, &word).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(b_.running(), 0);
}

TEST_P(SmpKernelTest, AHostThatFailsOneCpuInTheKernelLosesTheGuest) {
  ASSERT_TRUE(Write(a_, Page(0), 1).ok());
  machine_.cpu(1).FailAfter(1);
  EXPECT_EQ(b_.CreateProcess().status().message(), "the host is out of memory");
  EXPECT_EQ(a_.Unmap(Page(0), kPageSize).message(),
            "the host is out of memory");
}

// Random operations on all CPUs. Each read finds the last write of any CPU.
TEST_P(SmpKernelTest, EveryCpuReadsWhatAnyCpuWrote) {
  std::mt19937_64 random(1);
  constexpr uint64_t kPages = 12;
  struct Model {
    std::map<uint64_t, uint64_t> value;  // by page
    std::map<uint64_t, bool> read_only;
  };
  std::map<int, Model> models = {{1, {}}};
  const auto any_process = [&] {
    auto it = models.begin();
    std::advance(it, random() % models.size());
    return it->first;
  };
  // Pages lie in two regions that large pages could map.
  const uint64_t region = GetParam().geometry.LargePageBytes();
  const auto gva_of = [&](uint64_t page) {
    return page % 2 == 0 ? Page(page) : Page(page) + 3 * region;
  };
  for (uint64_t step = 1; step < 4'000; ++step) {
    const int at = static_cast<int>(random() % Machine::kCpus);
    GuestKernel& kernel = machine_.kernel(at);
    Model& model = models[kernel.running()];
    const uint64_t page = random() % kPages;
    const Gva gva = gva_of(page);
    machine_.cpu(static_cast<int>(random() % Machine::kCpus))
        .Prefetch(gva_of(random() % kPages));
    switch (random() % 32) {
      case 0: {
        if (models.size() > 5) break;
        const absl::StatusOr<int> child = kernel.Fork();
        ASSERT_TRUE(child.ok()) << child.status();
        models[*child] = model;
        break;
      }
      case 1:
      case 2:
      case 3:
        ASSERT_TRUE(kernel
                        .SwitchTo(any_process(), random() % 2 == 0
                                                     ? Cr3Load::kKeep
                                                     : Cr3Load::kFlush)
                        .ok());
        break;
      case 4: {
        const int process = any_process();
        const absl::Status status = kernel.Exit(process);
        if (status.ok()) models.erase(process);
        break;
      }
      case 5:
        ASSERT_TRUE(kernel.Unmap(gva, kPageSize).ok());
        model.value.erase(page);
        model.read_only.erase(page);
        break;
      case 6: {
        const uint64_t odd = random() % 2;
        ASSERT_TRUE(kernel.Unmap(kBase + odd * 3 * region, region).ok());
        for (uint64_t other = odd; other < kPages; other += 2) {
          model.value.erase(other);
          model.read_only.erase(other);
        }
        break;
      }
      case 7:
      case 8: {
        Read(kernel, gva);  // maps it
        const bool writable = random() % 2 == 0;
        ASSERT_TRUE(kernel
                        .Protect(gva, kPageSize,
                                 writable ? Writable::kYes : Writable::kNo)
                        .ok());
        model.read_only[page] = !writable;
        break;
      }
      default:
        if (random() % 2 == 0) {
          const absl::Status status = Write(kernel, gva, step);
          if (model.read_only[page]) {
            ASSERT_EQ(status.code(), absl::StatusCode::kPermissionDenied)
                << "step " << step;
          } else {
            ASSERT_TRUE(status.ok()) << status;
            model.value[page] = step;
          }
        } else {
          ASSERT_EQ(Read(kernel, gva), model.value[page]) << "step " << step;
        }
    }
    if (step % 16 == 0) machine_.ExpectNothingFreeIsReachable();
  }
  GuestKernelStats sum;
  for (int i = 0; i < Machine::kCpus; ++i) {
    sum.copies += machine_.kernel(i).stats().copies;
    sum.shootdowns += machine_.kernel(i).stats().shootdowns;
    sum.tables_freed += machine_.kernel(i).stats().tables_freed;
  }
  EXPECT_GT(sum.copies, 0u);
  EXPECT_GT(sum.shootdowns, 0u);
  EXPECT_GT(sum.tables_freed, 0u);
}

}  // namespace
}  // namespace mmu
