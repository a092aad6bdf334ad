#include "mmu_core/guest/hypervisor/l1_hypervisor.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmu_core/base/gfn_range.h"
#include "mmu_core/guest/hypervisor/fake_l1_cpu.h"

namespace mmu {
namespace {

using ::mmu::testing::FakeL1Cpu;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

using Invept = L1HypervisorOptions::Invept;
using Rights = L1Hypervisor::Rights;

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kMemory = 24 * kMiB;
constexpr Gpa kBase(0x4000'0000);

struct Case {
  std::string name;
  L1HypervisorOptions options;
};

GpaSpace Space(uint64_t bytes = kMemory) {
  return *GpaSpace::Create({GfnRange::Of(Gfn(0), bytes / kPageSize)});
}
Gpa Page(uint64_t i) { return kBase + i * kPageSize; }

class L1HypervisorTest : public ::testing::TestWithParam<Case> {
 protected:
  L1HypervisorTest() { EXPECT_TRUE(l1_.Boot().ok()); }

  absl::Status Write(Gpa nested, uint64_t value) {
    return l1_.Access(nested, AccessKind::kWrite, &value);
  }
  uint64_t Read(Gpa nested, AccessKind kind = AccessKind::kRead) {
    uint64_t word = ~uint64_t{0};
    const absl::Status status = l1_.Access(nested, kind, &word);
    EXPECT_TRUE(status.ok()) << status;
    return word;
  }
  std::vector<Gfn> TakeDirty() {
    absl::StatusOr<std::vector<Gfn>> dirty = l1_.TakeDirty();
    EXPECT_TRUE(dirty.ok()) << dirty.status();
    return dirty.ok() ? *dirty : std::vector<Gfn>();
  }
  bool large() const { return GetParam().options.max_page > Level::k4K; }

  FakeL1Cpu cpu_{kMemory};
  L1Hypervisor l1_{cpu_, Space(), GetParam().options};
};

INSTANTIATE_TEST_SUITE_P(
    Tables, L1HypervisorTest,
    ::testing::Values(
        Case{"Ept", {}}, Case{"EptGlobal", {.invept = Invept::kGlobal}},
        Case{"EptLarge", {.max_page = Level::k1G}},
        Case{"EptAccessedDirty", {.ad_bits = true}},
        Case{"EptAccessedDirtyLarge",
             {.ad_bits = true, .max_page = Level::k2M}},
        Case{"EptExecOnlyFiveLevels",
             {.root_level = Level::k256T, .exec_only = true}},
        Case{"Npt", {.tables = GuestTables::kNpt}},
        Case{"NptLarge", {.tables = GuestTables::kNpt, .max_page = Level::k2M}},
        Case{"NptFiveLevels",
             {.tables = GuestTables::kNpt, .root_level = Level::k256T}}),
    [](const auto& row) { return row.param.name; });

TEST_P(L1HypervisorTest, MemoryAppearsWhenItIsTouchedAndIsZero) {
  EXPECT_EQ(Read(Page(3)), 0u);
  EXPECT_TRUE(Write(Page(3) + 8, 7).ok());
  EXPECT_EQ(Read(Page(3) + 8), 7u);
  EXPECT_EQ(Read(Page(3) + 8, AccessKind::kExec), 7u);
  EXPECT_EQ(l1_.stats().demand_pages, 1u);
  EXPECT_EQ(l1_.stats().large_pages, large() ? 1u : 0u);
  EXPECT_EQ(l1_.stats().exits, 1u) << "nothing was write-protected";
  EXPECT_EQ(l1_.stats().invalidations, 0u)
      << "an entry that appears needs none";
  // The highest page of L2's address space, which needs other tables.
  const Gpa last = GetParam().options.root_level == Level::k256T
                       ? Gpa((uint64_t{1} << 57) - kPageSize)
                       : Gpa((uint64_t{1} << 48) - kPageSize);
  EXPECT_TRUE(Write(last, 9).ok());
  EXPECT_EQ(Read(last), 9u);
}

TEST_P(L1HypervisorTest, WhatIsUnmappedIsGoneAndComesBackEmpty) {
  ASSERT_TRUE(Write(Page(0), 1).ok());
  ASSERT_TRUE(Write(Page(1), 2).ok());
  ASSERT_TRUE(Write(Page(2), 3).ok());
  ASSERT_TRUE(l1_.Unmap(Page(0), 2 * kPageSize).ok());
  EXPECT_EQ(Read(Page(0)), 0u) << "also if the frame was used before";
  EXPECT_EQ(Read(Page(1)), 0u);
  EXPECT_EQ(Read(Page(2)), 3u);
  EXPECT_EQ(l1_.stats().invalidations, 1u) << "one for all";
  EXPECT_EQ(l1_.stats().splits, large() ? 1u : 0u);
}

TEST_P(L1HypervisorTest, WhatIsNotGrantedCannotBeDone) {
  ASSERT_TRUE(Write(Page(0), 1).ok());
  ASSERT_TRUE(l1_.Protect(Page(0), kPageSize, Rights::kReadExec).ok());
  EXPECT_EQ(Write(Page(0), 2).code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(Read(Page(0), AccessKind::kExec), 1u);
  ASSERT_TRUE(l1_.Protect(Page(0), kPageSize, Rights::kRead).ok());
  uint64_t word = 0;
  EXPECT_EQ(l1_.Access(Page(0), AccessKind::kExec, &word).code(),
            absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(Read(Page(0)), 1u);
  ASSERT_TRUE(l1_.Protect(Page(0), kPageSize, Rights::kAll).ok());
  EXPECT_TRUE(Write(Page(0), 2).ok());
  EXPECT_EQ(Read(Page(0), AccessKind::kExec), 2u);
  EXPECT_EQ(l1_.stats().invalidations, 2u) << "none to grant more";
}

TEST_P(L1HypervisorTest, ExecuteOnlyPagesCanBeFetchedAndNotRead) {
  ASSERT_TRUE(Write(Page(0), 1).ok());
  const absl::Status status = l1_.Protect(Page(0), kPageSize, Rights::kExec);
  if (!GetParam().options.exec_only) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return;
  }
  ASSERT_TRUE(status.ok());
  EXPECT_EQ(Read(Page(0), AccessKind::kExec), 1u);
  uint64_t word = 0;
  EXPECT_EQ(l1_.Access(Page(0), AccessKind::kRead, &word).code(),
            absl::StatusCode::kPermissionDenied);
}

TEST_P(L1HypervisorTest, ARemappedPageHasAnotherFrameAndTheSameContents) {
  ASSERT_TRUE(Write(Page(0), 1).ok());
  const absl::StatusOr<Gfn> before = l1_.FrameOf(Page(0));
  ASSERT_TRUE(before.ok());
  ASSERT_TRUE(l1_.Remap(Page(0)).ok());
  EXPECT_NE(l1_.FrameOf(Page(0)).value_or(*before), *before);
  ASSERT_TRUE(Write(Page(0), 2).ok());
  EXPECT_EQ(cpu_.memory().WordAt(ToGpa(*before)), 1u);
  EXPECT_EQ(Read(Page(0)), 2u);
}

TEST_P(L1HypervisorTest, AliasesAreOnePage) {
  ASSERT_TRUE(Write(Page(0), 1).ok());
  ASSERT_TRUE(l1_.Alias(Page(0), Page(600)).ok());
  EXPECT_EQ(Read(Page(600)), 1u);
  ASSERT_TRUE(Write(Page(600), 2).ok());
  EXPECT_EQ(Read(Page(0)), 2u);
  EXPECT_EQ(l1_.Remap(Page(0)).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(l1_.Alias(Page(0), Page(600)).code(),
            absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(l1_.Unmap(Page(0), kPageSize).ok());
  EXPECT_EQ(Read(Page(600)), 2u);
}

TEST_P(L1HypervisorTest, PagesCanBeMergedAndSplit) {
  EXPECT_EQ(l1_.Promote(Page(0)).code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(Write(Page(0), 1).ok());
  ASSERT_TRUE(Write(Page(100), 2).ok());
  EXPECT_EQ(l1_.Demote(Page(7)).ok(), large());
  const absl::StatusOr<Gfn> before = l1_.FrameOf(Page(100));
  ASSERT_TRUE(before.ok());
  ASSERT_TRUE(l1_.Promote(Page(7)).ok());
  EXPECT_NE(l1_.FrameOf(Page(100)).value_or(*before), *before);
  EXPECT_EQ(Read(Page(0)), 1u);
  EXPECT_EQ(Read(Page(100)), 2u);
  EXPECT_EQ(Read(Page(7)), 0u);
  ASSERT_TRUE(Write(Page(100), 3).ok());
  ASSERT_TRUE(l1_.Demote(Page(7)).ok());
  EXPECT_EQ(Read(Page(100)), 3u);
  EXPECT_EQ(l1_.Demote(Page(7)).code(), absl::StatusCode::kFailedPrecondition);
}

TEST_P(L1HypervisorTest, OnlyPagesThatAreAlikeAreMerged) {
  ASSERT_TRUE(Write(Page(0), 1).ok());
  ASSERT_TRUE(Write(Page(1), 1).ok());
  ASSERT_TRUE(l1_.Protect(Page(0), kPageSize, Rights::kRead).ok());
  EXPECT_EQ(l1_.Promote(Page(0)).code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(l1_.Protect(Page(0), kPageSize, Rights::kAll).ok());
  ASSERT_TRUE(l1_.Alias(Page(0), Page(600)).ok());
  EXPECT_EQ(l1_.Promote(Page(0)).code(), absl::StatusCode::kFailedPrecondition);
}

TEST_P(L1HypervisorTest, L1SeesWhatL2Wrote) {
  for (uint64_t i = 0; i < 4; ++i) ASSERT_TRUE(Write(Page(i), i).ok());
  if (large()) {
    ASSERT_TRUE(l1_.Demote(Page(0)).ok());
  }
  TakeDirty();
  EXPECT_THAT(TakeDirty(), IsEmpty());
  ASSERT_TRUE(Write(Page(2), 7).ok());
  Read(Page(3));
  EXPECT_THAT(TakeDirty(), ElementsAre(ToGfn(Page(2))));
  EXPECT_THAT(TakeDirty(), IsEmpty());
  ASSERT_TRUE(Write(Page(2), 8).ok());
  EXPECT_THAT(TakeDirty(), ElementsAre(ToGfn(Page(2))))
      << "the processor forgot that the page is dirty";
}

TEST_P(L1HypervisorTest, ErrorsSayWhatIsWrong) {
  const uint64_t end = GetParam().options.root_level == Level::k256T
                           ? uint64_t{1} << 57
                           : uint64_t{1} << 48;
  EXPECT_EQ(Write(Gpa(end), 1).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(l1_.Unmap(kBase + 8, kPageSize).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(l1_.FrameOf(kBase).status().code(), absl::StatusCode::kNotFound);
  absl::Status status;
  for (uint64_t i = 0; status.ok() && i < 2 * kMemory / kPageSize; ++i) {
    status = Write(Page(i), i);
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  // Pages that exist can still be read.
  EXPECT_EQ(Read(Page(1)), 1u);
}

TEST_P(L1HypervisorTest, AHostThatFailsIsNotTakenForAGuestThatDoes) {
  for (const uint64_t accesses : {0, 3, 50}) {
    FakeL1Cpu cpu(kMemory);
    L1Hypervisor l1(cpu, Space(), GetParam().options);
    ASSERT_TRUE(l1.Boot().ok());
    cpu.FailAfter(accesses);
    absl::Status status;
    uint64_t word = 1;
    for (uint64_t i = 0; status.ok() && i < 100; ++i) {
      status = l1.Access(Page(i), AccessKind::kWrite, &word);
    }
    EXPECT_EQ(status.message(), "the host is out of memory");
  }
}

// A random guest. L1 flushes only what the architecture demands, and the TLB
// keeps each entry until it is flushed. Every read must return what L2 wrote,
// every written page must be in the dirty log, and forbidden accesses must
// fail.
TEST_P(L1HypervisorTest, L2ReadsWhatItWrote) {
  std::mt19937_64 random(1);
  constexpr uint64_t kPages = 24;
  std::map<uint64_t, uint64_t> value;  // by page
  std::map<uint64_t, bool> read_only;
  std::set<Gfn> written;
  for (int step = 0; step < 6'000; ++step) {
    const uint64_t page = random() % kPages;
    // Pages lie in two regions that large pages could map.
    const Gpa nested = page % 2 == 0 ? Page(page) : Page(page + 2048);
    switch (random() % 24) {
      case 0:
        ASSERT_TRUE(l1_.Unmap(nested, kPageSize).ok());
        value.erase(page);
        read_only.erase(page);
        break;
      case 1:
      case 2: {
        Read(nested);  // maps it
        const bool writable = random() % 2 == 0;
        ASSERT_TRUE(l1_.Protect(nested, kPageSize,
                                writable ? Rights::kAll : Rights::kReadExec)
                        .ok());
        read_only[page] = !writable;
        break;
      }
      case 3: {
        const absl::Status status = l1_.Remap(nested);
        ASSERT_TRUE(status.ok()) << status;
        break;
      }
      case 4:
        l1_.Demote(nested).IgnoreError();
        break;
      case 5: {
        for (uint64_t i = page % 2; i < kPages; i += 2) {
          ASSERT_TRUE(l1_.Protect(nested - (page - i) * kPageSize, kPageSize,
                                  Rights::kAll)
                          .ok());
          read_only.erase(i);
        }
        const absl::Status status = l1_.Promote(nested);
        // No page is mapped there, or no run of free frames is left.
        ASSERT_TRUE(status.ok() ||
                    status.code() == absl::StatusCode::kFailedPrecondition)
            << status;
        break;
      }
      case 6: {
        const std::vector<Gfn> dirty = TakeDirty();
        for (const Gfn gfn : written) {
          ASSERT_TRUE(std::binary_search(dirty.begin(), dirty.end(), gfn))
              << "step " << step << " " << gfn;
        }
        written.clear();
        break;
      }
      default:
        if (random() % 2 == 0) {
          const absl::Status status =
              Write(nested, static_cast<uint64_t>(step));
          if (read_only[page]) {
            ASSERT_EQ(status.code(), absl::StatusCode::kPermissionDenied);
          } else {
            ASSERT_TRUE(status.ok()) << status;
            value[page] = static_cast<uint64_t>(step);
            written.insert(ToGfn(nested));
          }
        } else {
          ASSERT_EQ(Read(nested), value[page]) << "step " << step;
        }
    }
    // A page that has lost its contents need not be in the dirty log.
    if (value.count(page) == 0) written.erase(ToGfn(nested));
  }
  EXPECT_GT(l1_.stats().merges, 0u);
  EXPECT_GT(l1_.stats().splits, 0u);
}

}  // namespace
}  // namespace mmu
