// Generations, the working set and the ager through the daemon.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "google/longrunning/operations.grpc.pb.h"
#include "gtest/gtest.h"
#include "mmud/v1/aging_service.grpc.pb.h"
#include "mmud/v1/vm_service.grpc.pb.h"
#include "tests/integration/daemon.h"
#include "tests/integration/guest.h"
#include "tests/integration/test_client.h"

namespace mmud::integration {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

// A processor does not set the Accessed bit again for a page that is in its
// TLB. So each test uses other pages in each generation.
class WorkingSetTest : public ::testing::Test {
 protected:
  v1::Generation CreateGeneration(
      const v1::CreateGenerationRequest& request) const {
    const auto done = daemon_.client().WaitDone(
        daemon_.client()
            .Must(&v1::AgingService::Stub::CreateGeneration, request)
            .name());
    EXPECT_FALSE(done.has_error()) << done.ShortDebugString();
    const auto metadata = Unpack<v1::GenerationMetadata>(done.metadata());
    EXPECT_EQ(metadata.done_bytes(), metadata.total_bytes());
    EXPECT_TRUE(metadata.has_end_time());
    return Unpack<v1::Generation>(done.response());
  }
  v1::Generation CreateGeneration() const {
    v1::CreateGenerationRequest request;
    request.set_vm("vms/alpha");
    return CreateGeneration(request);
  }
  v1::WorkingSet Get(v1::GetWorkingSetRequest request = {}) const {
    request.set_vm("vms/alpha");
    return daemon_.client()
        .Must(&v1::AgingService::Stub::GetWorkingSet, request)
        .working_set();
  }
  v1::Ager Update(const v1::AgerSettings& settings) const {
    v1::UpdateAgerRequest request;
    request.set_vm("vms/alpha");
    *request.mutable_settings() = settings;
    return daemon_.client()
        .Must(&v1::AgingService::Stub::UpdateAger, request)
        .ager();
  }
  v1::Ager GetAger() const {
    v1::GetAgerRequest request;
    request.set_vm("vms/alpha");
    return daemon_.client()
        .Must(&v1::AgingService::Stub::GetAger, request)
        .ager();
  }
  std::string ReasonFor(const std::string& method,
                        const std::string& request) const {
    return FactsOf(daemon_.client()
                       .CallText("mmud.v1.AgingService/" + method, request)
                       .status)
        .reason;
  }

  Daemon daemon_;
};

TEST_F(WorkingSetTest, BinsTellWhichGenerationFoundPagesYoungLast) {
  const Guest guest(daemon_.client(), "alpha",
                    {MakeSlot(4 * kMiB, v1::MEMORY_BACKING_METADATA_ONLY)});
  EXPECT_EQ(ReasonFor("GetWorkingSet", "vm: 'vms/alpha'"), "NO_GENERATION");
  EXPECT_EQ(ReasonFor("ListHotRanges", "vm: 'vms/alpha'"), "NO_GENERATION");
  guest.WritePages(64);
  const v1::Generation first = CreateGeneration();
  EXPECT_EQ(first.sequence(), 1);
  EXPECT_EQ(first.young_page_count(), 64);
  EXPECT_EQ(first.examined_page_count(), 64);
  EXPECT_TRUE(first.has_since_end());
  guest.WritePages(96);  // the first 64 pages are in the TLB
  EXPECT_EQ(CreateGeneration().young_page_count(), 32);

  v1::GetWorkingSetRequest request;
  request.set_heat_map_unit(v1::PAGE_SIZE_4K);
  const v1::WorkingSet set = Get(request);
  ASSERT_THAT(set.generations(), SizeIs(2));
  ASSERT_THAT(set.bins(), SizeIs(2));
  EXPECT_EQ(set.bins(0).generation(), 2);
  EXPECT_EQ(set.bins(0).page_count(), 32);
  EXPECT_EQ(set.bins(0).size_bytes(), 32 * kPage);
  EXPECT_TRUE(set.bins(0).has_max_age());
  EXPECT_EQ(set.bins(1).page_count(), 64);
  EXPECT_FALSE(set.bins(1).has_max_age());
  EXPECT_EQ(set.never_young_page_count(), 0);
  ASSERT_THAT(set.windows(), SizeIs(3));
  EXPECT_EQ(set.windows(2).window().seconds(), 3600);
  EXPECT_EQ(set.windows(2).size_bytes(), 96 * kPage);
  EXPECT_FALSE(set.windows(2).complete());
  ASSERT_THAT(set.heat_maps(), SizeIs(1));
  const std::string ages = set.heat_maps(0).ages();
  EXPECT_EQ(ages, std::string(64, '\1') + std::string(32, '\0') +
                      std::string(4 * kMiB / kPage - 96, '\x80'));
  EXPECT_THAT(daemon_.MetricsText(),
              HasSubstr(absl::StrCat(
                  "mmud_working_set_bytes{vm=\"vms/alpha\",window=\"1h\"} ",
                  96 * kPage)));
}

TEST_F(WorkingSetTest, RangesAreListedByHeatPageByPage) {
  const Guest guest(daemon_.client(), "alpha",
                    {MakeSlot(4 * kMiB, v1::MEMORY_BACKING_METADATA_ONLY)});
  guest.WritePages(8, 2);  // 0, 2, 4, 6
  CreateGeneration();
  guest.WritePages(8);  // 1, 3, 5, 7; the others are in the TLB
  CreateGeneration();
  v1::ListHotRangesRequest request;
  request.set_vm("vms/alpha");
  request.set_exclude_never_young(true);
  request.set_page_size(3);
  std::vector<int64_t> pages;
  int calls = 0;
  do {
    const auto list =
        daemon_.client().Must(&v1::AgingService::Stub::ListHotRanges, request);
    for (const v1::HotRange& range : list.ranges()) {
      EXPECT_EQ(range.extent().size_bytes(), kPage);
      EXPECT_EQ(range.generation(), pages.size() < 4 ? 2 : 1);
      pages.push_back(range.extent().gpa_bytes() / kPage);
    }
    EXPECT_EQ(list.newest_generation(), 2);
    request.set_page_token(list.next_page_token());
  } while (!request.page_token().empty() && ++calls < 8);
  EXPECT_EQ(pages, (std::vector<int64_t>{1, 3, 5, 7, 0, 2, 4, 6}));

  request.Clear();
  request.set_vm("vms/alpha");
  request.set_order(v1::HEAT_ORDER_COLDEST_FIRST);
  request.set_granularity(v1::PAGE_SIZE_2M);
  const auto coldest =
      daemon_.client().Must(&v1::AgingService::Stub::ListHotRanges, request);
  ASSERT_THAT(coldest.ranges(), SizeIs(2));
  EXPECT_EQ(coldest.ranges(0).extent().gpa_bytes(), 2 * kMiB);
  EXPECT_EQ(coldest.ranges(0).generation(), 0);
  EXPECT_EQ(coldest.ranges(1).generation(), 2);
}

TEST_F(WorkingSetTest, WhatIsForgottenIsGone) {
  const Guest guest(daemon_.client(), "alpha",
                    {MakeSlot(4 * kMiB, v1::MEMORY_BACKING_METADATA_ONLY)});
  guest.WritePages(64);
  CreateGeneration();
  v1::AgerSettings on;
  on.set_enabled(true);
  Update(on);
  v1::ForgetWorkingSetRequest forget;
  forget.set_vm("vms/alpha");
  daemon_.client().Must(&v1::AgingService::Stub::ForgetWorkingSet, forget);
  EXPECT_FALSE(GetAger().settings().enabled());
  EXPECT_EQ(ReasonFor("GetWorkingSet", "vm: 'vms/alpha'"), "NO_GENERATION");
  EXPECT_FALSE(
      absl::StrContains(daemon_.MetricsText(), "mmud_working_set_bytes{"));
}

// A generation that uses little of a processor lasts; there is one at a time,
// and it can be cancelled.
TEST_F(WorkingSetTest, AGenerationIsPacedAndCanBeCancelled) {
  const Guest guest(daemon_.client(), "alpha",
                    {MakeSlot(1024 * kGiB, v1::MEMORY_BACKING_METADATA_ONLY)});
  guest.WritePages(64);
  v1::CreateGenerationRequest request;
  request.set_vm("vms/alpha");
  request.set_cpu_percent(1);
  const std::string slow =
      daemon_.client()
          .Must(&v1::AgingService::Stub::CreateGeneration, request)
          .name();
  EXPECT_EQ(ReasonFor("CreateGeneration", "vm: 'vms/alpha'"),
            "GENERATION_RUNNING");
  daemon_.client().Cancel(slow);
  const auto cancelled = daemon_.client().WaitDone(slow);
  EXPECT_EQ(FactsOf(cancelled.error()).reason, "OPERATION_CANCELLED");
  EXPECT_TRUE(Get().generations(0).incomplete());
  EXPECT_EQ(CreateGeneration().sequence(), 2);
}

// The operation ends, too, and the next generation is the first again.
TEST_F(WorkingSetTest, AGenerationEndsWhenTheWorkingSetIsForgotten) {
  const Guest guest(daemon_.client(), "alpha",
                    {MakeSlot(1024 * kGiB, v1::MEMORY_BACKING_METADATA_ONLY)});
  v1::CreateGenerationRequest request;
  request.set_vm("vms/alpha");
  request.set_cpu_percent(1);
  const std::string slow =
      daemon_.client()
          .Must(&v1::AgingService::Stub::CreateGeneration, request)
          .name();
  v1::ForgetWorkingSetRequest forget;
  forget.set_vm("vms/alpha");
  daemon_.client().Must(&v1::AgingService::Stub::ForgetWorkingSet, forget);
  const auto ended = daemon_.client().WaitDone(slow);
  EXPECT_EQ(FactsOf(ended.error()).reason, "OPERATION_CANCELLED");
  EXPECT_EQ(ReasonFor("GetWorkingSet", "vm: 'vms/alpha'"), "NO_GENERATION");
  EXPECT_EQ(CreateGeneration().sequence(), 1);
}

// The units are those of the memslots that have maps, present or not.
TEST_F(WorkingSetTest, AHeatMapHasALimitOfUnits) {
  const Guest guest(daemon_.client(), "alpha",
                    {MakeSlot(17 * kGiB, v1::MEMORY_BACKING_METADATA_ONLY)});
  CreateGeneration();
  v1::DeleteMemslotRequest remove;
  remove.set_name("vms/alpha/memslots/0");
  daemon_.client().Must(&v1::VmService::Stub::DeleteMemslot, remove);
  EXPECT_EQ(
      ReasonFor("GetWorkingSet", "vm: 'vms/alpha' heat_map_unit: PAGE_SIZE_4K"),
      "TOO_MANY_PAGES");
  CreateGeneration();
  EXPECT_EQ(
      ReasonFor("GetWorkingSet", "vm: 'vms/alpha' heat_map_unit: PAGE_SIZE_4K"),
      "");
}

TEST_F(WorkingSetTest, TheAgerMakesGenerations) {
  const Guest guest(daemon_.client(), "alpha",
                    {MakeSlot(64 * kMiB, v1::MEMORY_BACKING_METADATA_ONLY)});
  EXPECT_FALSE(GetAger().settings().enabled());
  guest.StartRandomWrites(1);
  v1::AgerSettings settings;
  settings.set_enabled(true);
  settings.set_cpu_percent(50);
  settings.mutable_min_interval()->set_nanos(100'000'000);
  EXPECT_TRUE(Update(settings).settings().enabled());
  EXPECT_TRUE(Eventually([&] { return GetAger().generation_count() >= 3; }));
  const v1::Ager ager = GetAger();
  EXPECT_EQ(ager.last_error(), "");
  EXPECT_EQ(ager.settings().cpu_percent(), 50);
  EXPECT_EQ(ager.settings().max_interval().seconds(), 60) << "is unchanged";
  EXPECT_TRUE(ager.has_changed_ratio());
  EXPECT_GE(Get().generations().size(), 3);
  EXPECT_THAT(daemon_.MetricsText(), HasSubstr("\nmmud_agers 1\n"));
  EXPECT_FALSE(absl::StrContains(daemon_.MetricsText(),
                                 "\nmmud_ager_generations_total 0\n"));
  settings.Clear();
  settings.set_enabled(false);
  EXPECT_FALSE(Update(settings).settings().enabled());
  EXPECT_THAT(daemon_.MetricsText(), HasSubstr("\nmmud_agers 0\n"));
  // A VM whose ager is on can be deleted.
  settings.set_enabled(true);
  Update(settings);
  guest.StopWorkload();
  v1::DeleteVmRequest remove;
  remove.set_name(guest.name());
  daemon_.client().Must(&v1::VmService::Stub::DeleteVm, remove);
}

// An update that is refused changes nothing.
TEST_F(WorkingSetTest, SettingsChangeTogetherOrNotAtAll) {
  const Guest guest(daemon_.client(), "alpha",
                    {MakeSlot(4 * kMiB, v1::MEMORY_BACKING_METADATA_ONLY)});
  const v1::Ager before = GetAger();
  EXPECT_EQ(ReasonFor("UpdateAger",
                      "vm: 'vms/alpha' settings { enabled: true cpu_percent: 0 "
                      "}"),
            "INVALID_THROTTLE");
  EXPECT_EQ(ReasonFor("UpdateAger",
                      "vm: 'vms/alpha' settings { enabled: true "
                      "min_interval { seconds: 120 } }"),
            "INVALID_DURATION");
  EXPECT_EQ(ReasonFor("UpdateAger",
                      "vm: 'vms/alpha' etag: 'old' settings { enabled: true }"),
            "ETAG_MISMATCH");
  EXPECT_EQ(GetAger().SerializeAsString(), before.SerializeAsString());
  v1::UpdateAgerRequest request;
  request.set_vm("vms/alpha");
  request.set_etag(before.etag());
  request.mutable_settings()->set_cpu_percent(7);
  daemon_.client().Must(&v1::AgingService::Stub::UpdateAger, request);
  EXPECT_NE(GetAger().etag(), before.etag());
}

}  // namespace
}  // namespace mmud::integration
