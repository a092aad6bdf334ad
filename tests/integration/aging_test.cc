// AgeRange through the daemon: the age of a huge page of which a range covers
// only a part, and what becomes of MMUs that do not age fast.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "mmud/v1/aging_service.grpc.pb.h"
#include "tests/integration/aged_mmus.h"
#include "tests/integration/daemon.h"
#include "tests/integration/guest.h"
#include "tests/integration/test_client.h"

namespace mmud::integration {
namespace {

class AgingTest : public ::testing::Test {
 protected:
  v1::AgeRangeRequest RequestOf(const std::vector<v1::Extent>& ranges) {
    v1::AgeRangeRequest request;
    request.set_vm("vms/alpha");
    for (const v1::Extent& range : ranges) *request.add_ranges() = range;
    return request;
  }
  static v1::Extent Range(int64_t gpa_bytes, int64_t size_bytes) {
    v1::Extent extent;
    extent.set_gpa_bytes(gpa_bytes);
    extent.set_size_bytes(size_bytes);
    return extent;
  }
  v1::AgeRangeResponse Age(v1::AgeRangeRequest request, v1::AgingMode mode) {
    request.set_mode(mode);
    return daemon_.client().Must(&v1::AgingService::Stub::AgeRange, request);
  }
  // The part of the answer that is the same with and without clearing.
  static std::string Found(const v1::AgeRangeResponse& response) {
    std::string text = absl::StrCat(response.young_page_count(), " young, ",
                                    response.old_page_count(), " old");
    for (const v1::YoungBitmap& young : response.young()) {
      absl::StrAppend(&text, "\n", young.range().ShortDebugString(), " ",
                      young.bitmap());
    }
    return text;
  }

  Daemon daemon_;
};

TEST_F(AgingTest, ClearingAnswersWhatTestingDoesWhereverTheRangesCut) {
  const struct {
    std::vector<v1::Extent> ranges;
    int64_t young;
  } cases[] = {
      {{Range(512 * kMiB, 1536 * kMiB)}, 393'216},
      {{Range(kPage, 2 * kGiB - kPage)}, 524'287},
      // The ranges lie in one huge page, have a gap between them, and are in
      // descending order.
      {{Range(700 * kMiB, 3 * kMiB), Range(10 * kMiB, kMiB)}, 1024},
      {{Range(0, kGiB), Range(512 * kMiB, kGiB)}, 393'216},
  };
  for (const auto& [ranges, young] : cases) {
    // The guest must not have run before: the processor does not set Accessed
    // again for a page that is in its TLB.
    daemon_.client().CallText("mmud.v1.VmService/DeleteVm",
                              "name: 'vms/alpha'");
    const Guest guest(daemon_.client(), "alpha",
                      {MakeSlot(2 * kGiB, v1::MEMORY_BACKING_METADATA_ONLY,
                                v1::PAGE_SIZE_1G)});
    guest.WritePages(2 * kGiB / kPage, kGiB / kPage);
    const v1::AgeRangeRequest request = RequestOf(ranges);
    const v1::AgeRangeResponse tested = Age(request, v1::AGING_MODE_TEST);
    EXPECT_EQ(tested.young_page_count(), young);
    EXPECT_TRUE(tested.was_fast());
    EXPECT_EQ(Found(Age(request, v1::AGING_MODE_TEST_AND_CLEAR)),
              Found(tested));
    const v1::AgeRangeResponse after = Age(request, v1::AGING_MODE_TEST);
    EXPECT_EQ(after.young_page_count(), 0);
    EXPECT_FALSE(after.was_fast());
  }
}

// The shadow MMU takes locks to age pages. So it is left out, and the answer
// says so; or the call fails; or it is examined, as the request asks.
TEST_F(AgingTest, AnMmuThatDoesNotAgeFastIsSkippedOrRefusedAsAsked) {
  daemon_.client().CallText(
      "mmud.v1.VmService/CreateVm",
      absl::StrCat(
          "vm_id: 'alpha' vm { vcpu_count: 1 memslots { size_bytes: ", 4 * kMiB,
          " backing: MEMORY_BACKING_ANONYMOUS } tdp_shadow "
          "{} }"));
  const Guest guest(daemon_.client(), "vms/alpha");
  guest.WritePages(16);
  v1::AgeRangeRequest request = RequestOf({});
  const v1::AgeRangeResponse skipped =
      Age(request, v1::AGING_MODE_TEST_AND_CLEAR);
  EXPECT_EQ(MmusOf(skipped), "SHADOW SKIPPED UNSPECIFIED");
  EXPECT_EQ(skipped.young_page_count() + skipped.old_page_count(), 0);

  const RawResult refused = daemon_.client().CallText(
      "mmud.v1.AgingService/AgeRange",
      "vm: 'vms/alpha' mode: AGING_MODE_TEST_AND_CLEAR "
      "slow_mmus: SLOW_MMUS_REFUSE");
  EXPECT_EQ(refused.status.error_code(), grpc::FAILED_PRECONDITION);
  EXPECT_EQ(FactsOf(refused.status).reason, "FAST_AGING_UNAVAILABLE");
  EXPECT_EQ(FactsOf(refused.status).field, "lock_mode");
  EXPECT_THAT(refused.status.error_message(),
              ::testing::HasSubstr("the shadow MMU is in use and takes a lock "
                                   "(rmap)"));

  request.set_lock_mode(v1::AGING_LOCK_MODE_MAY_LOCK);
  const v1::AgeRangeResponse examined = Age(request, v1::AGING_MODE_TEST);
  EXPECT_EQ(MmusOf(examined), "SHADOW COVERED RMAP");
  EXPECT_GT(examined.young_page_count(), 0) << "nothing has been aged";
  EXPECT_FALSE(examined.was_fast());
}

TEST_F(AgingTest, AnMmuThatAgesFastIsExaminedWhateverTheRequestSays) {
  const Guest guest(daemon_.client(), "alpha",
                    {MakeSlot(4 * kMiB, v1::MEMORY_BACKING_METADATA_ONLY)});
  guest.WritePages(16);
  v1::AgeRangeRequest request = RequestOf({});
  request.set_slow_mmus(v1::SLOW_MMUS_REFUSE);
  for (const v1::AgingLockMode mode :
       {v1::AGING_LOCK_MODE_LOCKLESS_ONLY, v1::AGING_LOCK_MODE_MAY_LOCK}) {
    request.set_lock_mode(mode);
    const v1::AgeRangeResponse aged = Age(request, v1::AGING_MODE_TEST);
    EXPECT_EQ(MmusOf(aged), "TDP COVERED NONE");
    EXPECT_EQ(aged.young_page_count(), 16);
    EXPECT_TRUE(aged.was_fast());
  }
}

}  // namespace
}  // namespace mmud::integration
