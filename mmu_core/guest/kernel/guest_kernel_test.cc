#include "mmu_core/guest/kernel/guest_kernel.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "mmu_core/guest/kernel/fake_guest_cpu.h"

namespace mmu {
namespace {

using ::mmu::testing::FakeGuestCpu;

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kMemory = 24 * kMiB;
constexpr Gva kBase(0x40'0000);

using LargePages = GuestKernelOptions::LargePages;
using Writable = GuestKernel::Writable;

struct Case {
  PagingGeometry geometry;
  LargePages large_pages;
};

class GuestKernelTest : public ::testing::TestWithParam<Case> {
 protected:
  GuestKernelTest() { EXPECT_TRUE(kernel_.Boot().ok()); }

  static GpaSpace Space(uint64_t bytes = kMemory) {
    return *GpaSpace::Create({GfnRange::Of(Gfn(0), bytes / kPageSize)});
  }
  Gva Page(uint64_t i) const { return kBase + i * kPageSize; }
  absl::Status Write(Gva gva, uint64_t value) {
    return kernel_.Access(gva, AccessKind::kWrite, &value);
  }
  uint64_t Read(Gva gva) {
    uint64_t word = ~uint64_t{0};
    const absl::Status status = kernel_.Access(gva, AccessKind::kRead, &word);
    EXPECT_TRUE(status.ok()) << status;
    return word;
  }
  bool large() const { return GetParam().large_pages == LargePages::kYes; }

  FakeGuestCpu cpu_{kMemory};
  GuestKernel kernel_{
      cpu_,
      Space(),
      {.geometry = GetParam().geometry, .large_pages = GetParam().large_pages}};
};

INSTANTIATE_TEST_SUITE_P(
    Geometries, GuestKernelTest,
    ::testing::Values(Case{PagingGeometry::k32Bit, LargePages::kNo},
                      Case{PagingGeometry::k32Bit, LargePages::kYes},
                      Case{PagingGeometry::kPae, LargePages::kNo},
                      Case{PagingGeometry::kPae, LargePages::kYes},
                      Case{PagingGeometry::k4Level, LargePages::kNo},
                      Case{PagingGeometry::k4Level, LargePages::kYes},
                      Case{PagingGeometry::k5Level, LargePages::kNo},
                      Case{PagingGeometry::k5Level, LargePages::kYes}),
    [](const auto& row) {
      std::string name(row.param.geometry.name);
      name.erase(std::remove(name.begin(), name.end(), '-'), name.end());
      return "Paging" + name +
             (row.param.large_pages == LargePages::kYes ? "Large" : "");
    });

TEST_P(GuestKernelTest, MemoryAppearsWhenItIsTouchedAndIsZero) {
  EXPECT_EQ(Read(Page(3)), 0u);
  EXPECT_TRUE(Write(Page(3) + 8, 7).ok());
  EXPECT_EQ(Read(Page(3) + 8), 7u);
  EXPECT_EQ(kernel_.stats().demand_faults, 1u);
  EXPECT_EQ(kernel_.stats().large_pages, large() ? 1u : 0u);
  // The highest page of a program's address space, which needs other tables.
  const Gva last = GetParam().geometry.user_end - kPageSize;
  EXPECT_TRUE(Write(last, 9).ok());
  EXPECT_EQ(Read(last), 9u);
  EXPECT_EQ(Read(Page(3) + 8), 7u);
}

TEST_P(GuestKernelTest, ProcessesDoNotSeeEachOther) {
  ASSERT_TRUE(Write(Page(0), 1).ok());
  const absl::StatusOr<int> other = kernel_.CreateProcess();
  ASSERT_TRUE(other.ok());
  ASSERT_TRUE(kernel_.SwitchTo(*other, Cr3Load::kKeep).ok());
  EXPECT_EQ(Read(Page(0)), 0u);
  ASSERT_TRUE(Write(Page(0), 2).ok());
  ASSERT_TRUE(kernel_.SwitchTo(1, Cr3Load::kKeep).ok());
  EXPECT_EQ(Read(Page(0)), 1u);
}

TEST_P(GuestKernelTest, AForkSharesUntilSomebodyWrites) {
  ASSERT_TRUE(Write(Page(0), 1).ok());
  ASSERT_TRUE(Write(Page(1), 2).ok());
  const uint64_t frames = kernel_.frames().frames_in_use();
  const absl::StatusOr<int> child = kernel_.Fork();
  ASSERT_TRUE(child.ok());
  EXPECT_EQ(kernel_.stats().copies, 0u);
  EXPECT_LT(kernel_.frames().frames_in_use() - frames, 8u) << "tables only";
  // The parent writes. With a stale writable TLB entry it would write to the
  // child's page as well.
  ASSERT_TRUE(Write(Page(0), 10).ok());
  EXPECT_EQ(kernel_.stats().copies, 1u);
  ASSERT_TRUE(kernel_.SwitchTo(*child, Cr3Load::kKeep).ok());
  EXPECT_EQ(Read(Page(0)), 1u);
  EXPECT_EQ(Read(Page(1)), 2u);
  // The child is the only owner of the frame now, so it writes in place.
  ASSERT_TRUE(Write(Page(0), 11).ok());
  EXPECT_EQ(kernel_.stats().copies, 1u);
  ASSERT_TRUE(kernel_.SwitchTo(1, Cr3Load::kKeep).ok());
  EXPECT_EQ(Read(Page(0)), 10u);
}

TEST_P(GuestKernelTest, WhatIsUnmappedIsGoneAndComesBackEmpty) {
  ASSERT_TRUE(Write(Page(0), 1).ok());
  ASSERT_TRUE(Write(Page(1), 2).ok());
  ASSERT_TRUE(kernel_.Unmap(Page(0), kPageSize).ok());
  EXPECT_EQ(Read(Page(1)), 2u);
  EXPECT_EQ(Read(Page(0)), 0u) << "also if the frame was used before";
}

TEST_P(GuestKernelTest, ReadOnlyMemoryCannotBeWritten) {
  ASSERT_TRUE(Write(Page(0), 1).ok());
  ASSERT_TRUE(kernel_.Protect(Page(0), kPageSize, Writable::kNo).ok());
  EXPECT_EQ(Write(Page(0), 2).code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(Read(Page(0)), 1u);
  ASSERT_TRUE(kernel_.Protect(Page(0), kPageSize, Writable::kYes).ok());
  EXPECT_TRUE(Write(Page(0), 2).ok());
  EXPECT_EQ(Read(Page(0)), 2u);
}

// After the fork both processes have the page read-only. One makes it writable
// again while the frame is still shared.
TEST_P(GuestKernelTest, MakingASharedPageWritableKeepsItApart) {
  ASSERT_TRUE(Write(Page(0), 1).ok());
  ASSERT_TRUE(kernel_.Protect(Page(0), kPageSize, Writable::kNo).ok());
  const absl::StatusOr<int> child = kernel_.Fork();
  ASSERT_TRUE(child.ok());
  ASSERT_TRUE(kernel_.Protect(Page(0), kPageSize, Writable::kYes).ok());
  ASSERT_TRUE(Write(Page(0), 2).ok());
  ASSERT_TRUE(kernel_.SwitchTo(*child, Cr3Load::kFlush).ok());
  EXPECT_EQ(Read(Page(0)), 1u);
}

TEST_P(GuestKernelTest, AnExitGivesEverythingBack) {
  const uint64_t before = kernel_.frames().frames_in_use();
  const absl::StatusOr<int> child = kernel_.CreateProcess();
  ASSERT_TRUE(child.ok());
  ASSERT_TRUE(kernel_.SwitchTo(*child, Cr3Load::kKeep).ok());
  for (uint64_t i = 0; i < 100; ++i) ASSERT_TRUE(Write(Page(7 * i), i).ok());
  EXPECT_EQ(kernel_.Exit(*child).code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(kernel_.SwitchTo(1, Cr3Load::kKeep).ok());
  ASSERT_TRUE(kernel_.Exit(*child).ok());
  EXPECT_EQ(kernel_.frames().frames_in_use(), before);
  EXPECT_EQ(kernel_.SwitchTo(*child, Cr3Load::kKeep).code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_P(GuestKernelTest, ErrorsSayWhatIsWrong) {
  EXPECT_EQ(Write(GetParam().geometry.user_end, 1).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(kernel_.Unmap(kBase + 8, kPageSize).code(),
            absl::StatusCode::kInvalidArgument);
  absl::Status status;
  for (uint64_t i = 0; status.ok() && i < 2 * kMemory / kPageSize; ++i) {
    status = Write(Page(i), i);
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  // Pages that exist can still be read.
  EXPECT_EQ(Read(Page(1)), 1u);
}

TEST_P(GuestKernelTest, AHostThatFailsIsNotTakenForAGuestThatDoes) {
  for (const uint64_t accesses : {0, 3, 50}) {
    FakeGuestCpu cpu(kMemory);
    GuestKernel kernel(cpu, Space(), {.geometry = GetParam().geometry});
    ASSERT_TRUE(kernel.Boot().ok());
    cpu.FailAfter(accesses);
    absl::Status status;
    uint64_t word = 1;
    for (uint64_t i = 0; status.ok() && i < 100; ++i) {
      status = kernel.Access(Page(i), AccessKind::kWrite, &word);
    }
    EXPECT_EQ(status.message(), "the host is out of memory");
  }
}

// Random programs. The kernel flushes only what the architecture demands, and
// the TLB keeps each entry until it is flushed. Every read must return what the
// process wrote.
TEST_P(GuestKernelTest, EveryProcessReadsWhatItWrote) {
  std::mt19937_64 random(1);
  constexpr uint64_t kPages = 24;
  struct Model {
    std::map<uint64_t, uint64_t> value;  // by page
    std::map<uint64_t, bool> read_only;  // pages mapped and protected
    std::map<uint64_t, bool> mapped;
  };
  std::map<int, Model> models = {{1, {}}};
  for (int step = 0; step < 8'000; ++step) {
    Model& model = models[kernel_.running()];
    const uint64_t page = random() % kPages;
    // Pages lie in two regions that large pages could map.
    const Gva gva =
        page % 2 == 0 ? Page(page) : Page(page) + 3 * uint64_t{0x40'0000};
    switch (random() % 32) {
      case 0: {
        if (models.size() > 4) break;
        const absl::StatusOr<int> child = kernel_.Fork();
        ASSERT_TRUE(child.ok()) << child.status();
        models[*child] = models[kernel_.running()];
        break;
      }
      case 1:
      case 2:
      case 3: {
        auto it = models.begin();
        std::advance(it, random() % models.size());
        ASSERT_TRUE(kernel_
                        .SwitchTo(it->first, random() % 2 == 0
                                                 ? Cr3Load::kKeep
                                                 : Cr3Load::kFlush)
                        .ok());
        break;
      }
      case 4: {
        auto it = models.begin();
        std::advance(it, random() % models.size());
        if (it->first == kernel_.running()) break;
        ASSERT_TRUE(kernel_.Exit(it->first).ok());
        models.erase(it);
        break;
      }
      case 5:
        ASSERT_TRUE(kernel_.Unmap(gva, kPageSize).ok());
        model.value.erase(page);
        model.read_only.erase(page);
        break;
      case 6:
      case 7: {
        Read(gva);  // maps it
        const bool writable = random() % 2 == 0;
        ASSERT_TRUE(kernel_
                        .Protect(gva, kPageSize,
                                 writable ? Writable::kYes : Writable::kNo)
                        .ok());
        model.read_only[page] = !writable;
        break;
      }
      default:
        if (random() % 2 == 0) {
          const absl::Status status = Write(gva, static_cast<uint64_t>(step));
          if (model.read_only[page]) {
            ASSERT_EQ(status.code(), absl::StatusCode::kPermissionDenied);
          } else {
            ASSERT_TRUE(status.ok()) << status;
            model.value[page] = static_cast<uint64_t>(step);
          }
        } else {
          ASSERT_EQ(Read(gva), model.value[page]) << "step " << step;
        }
    }
  }
  EXPECT_GT(kernel_.stats().copies, 0u);
  EXPECT_EQ(kernel_.stats().large_splits > 0, large());
}

TEST(GuestKernelBootTest, MemoryThatItsKernelCannotMapIsRefused) {
  FakeGuestCpu cpu(kMiB);
  const GpaSpace space = *GpaSpace::Create(
      {GfnRange::Of(Gfn(0), (uint64_t{2} << 30) / kPageSize)});
  GuestKernel kernel(cpu, space, {.geometry = PagingGeometry::kPae});
  EXPECT_EQ(kernel.Boot().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace mmu
