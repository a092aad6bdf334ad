// mmuctl vm: what reaches the daemon.

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/mmuctl/fake_daemon_test_util.h"
#include "client/mmuctl/run_line_test_util.h"
#include "client/text/error_text.h"
#include "client/text/message_json.h"
#include "gtest/gtest.h"
#include "mmud/v1/vm_service.grpc.pb.h"
#include "nlohmann/json.hpp"

namespace mmud::client {
namespace {

TEST(VmCommandsTest, SizesReachTheDaemonInBytes) {
  FakeDaemon daemon;
  const Result result =
      daemon.Run({"vm", "create", "vms/alpha", "--vcpus", "2", "--memory",
                  "4GiB", "--host-page-size", "2M"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  EXPECT_EQ(daemon.create.vm_id(), "alpha");
  EXPECT_EQ(daemon.create.vm().vcpu_count(), 2);
  ASSERT_EQ(daemon.create.vm().memslots_size(), 1);
  EXPECT_EQ(daemon.create.vm().memslots(0).size_bytes(), int64_t{4} << 30);
  EXPECT_EQ(daemon.create.vm().memslots(0).host_page_size(), v1::PAGE_SIZE_2M);
  EXPECT_TRUE(Contains(result.out, "vms/alpha"));
  EXPECT_TRUE(Contains(result.out, "4 GiB"));
}

TEST(VmCommandsTest, TheMmuAndTheGuestsPagingReachTheDaemon) {
  FakeDaemon daemon;
  Result result = daemon.Run(
      {"vm", "create", "alpha", "--mmu", "nested", "--entry-format", "npt",
       "--levels", "5", "--guest-paging", "5level", "--guest-large-pages",
       "--guest-processes", "3", "--shadow-page-limit", "1000"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  EXPECT_EQ(daemon.create.vm().nested().entry_format(), v1::ENTRY_FORMAT_NPT);
  EXPECT_EQ(daemon.create.vm().nested().page_table_levels(), 5);
  const v1::GuestPaging& paging = daemon.create.vm().guest_paging();
  EXPECT_EQ(paging.mode(), v1::GUEST_PAGING_MODE_5LEVEL);
  EXPECT_EQ(paging.large_pages(), v1::FEATURE_ON);
  EXPECT_EQ(paging.process_count(), 3);
  EXPECT_EQ(daemon.create.vm().shadow_page_limit(), 1000);
  EXPECT_TRUE(Contains(result.out, "nested, npt, 5 levels")) << result.out;
  EXPECT_TRUE(
      Contains(result.out, "5level, large pages, 3 processes per vCPU\n"))
      << result.out;
  EXPECT_TRUE(Contains(result.out, "up to 1,000\n")) << result.out;

  result = daemon.Run({"vm", "create", "alpha", "--mmu", "tdp_shadow", "--pml",
                       "on", "--ad-bits", "on"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  EXPECT_EQ(daemon.create.vm().tdp_shadow().pml(), v1::FEATURE_ON);
  EXPECT_FALSE(daemon.create.vm().has_guest_paging());

  result = daemon.Run({"vm", "create", "alpha", "--mmu", "shadow",
                       "--max-page-size", "2m", "--slot-zap", "slot"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  EXPECT_EQ(daemon.create.vm().shadow().max_page_size(), v1::PAGE_SIZE_2M);
  EXPECT_EQ(daemon.create.vm().shadow().slot_zap(), v1::SLOT_ZAP_SLOT);

  result = daemon.Run({"vm", "create", "alpha"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  EXPECT_TRUE(daemon.create.vm().has_tdp());
}

TEST(VmCommandsTest, TheOptionsOfStage2ReachTheDaemon) {
  FakeDaemon daemon;
  const Result result = daemon.Run({"vm",
                                    "create",
                                    "arm",
                                    "--mmu",
                                    "stage2",
                                    "--granule",
                                    "16KiB",
                                    "--ipa-bits",
                                    "44",
                                    "--start-level",
                                    "1",
                                    "--bbm-level",
                                    "2",
                                    "--eager-split-chunk",
                                    "32MiB",
                                    "--hardware-access-flag",
                                    "--hardware-dirty-state",
                                    "--tlbi-range",
                                    "--max-page-size",
                                    "2m"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  const v1::Stage2Mmu& stage2 = daemon.create.vm().stage2();
  EXPECT_EQ(stage2.granule_bytes(), 16384);
  EXPECT_EQ(stage2.ipa_bits(), 44);
  EXPECT_EQ(stage2.start_level(), 1);
  EXPECT_EQ(stage2.bbm_level(), 2);
  EXPECT_EQ(stage2.eager_split_chunk_bytes(), int64_t{32} << 20);
  EXPECT_EQ(stage2.hardware_access_flag(), v1::FEATURE_ON);
  EXPECT_EQ(stage2.hardware_dirty_state(), v1::FEATURE_ON);
  EXPECT_EQ(stage2.tlbi_range(), v1::FEATURE_ON);
  EXPECT_EQ(stage2.max_page_size(), v1::PAGE_SIZE_2M);
  EXPECT_TRUE(Contains(result.out,
                       "stage2, granule 16 KiB, 44 address bits from level 1, "
                       "BBM level 2, up to 2M, split by 32 MiB, hardware "
                       "Access flag, hardware dirty state, TLBI by range\n"))
      << result.out;
}

TEST(VmCommandsTest, OptionsOfX86AndOfStage2DoNotMix) {
  FakeDaemon daemon;
  for (const std::vector<std::string>& option :
       std::vector<std::vector<std::string>>{{"--entry-format", "npt"},
                                             {"--levels", "5"},
                                             {"--ad-bits", "on"},
                                             {"--pml", "on"},
                                             {"--mmio-caching", "off"},
                                             {"--slot-zap", "slot"},
                                             {"--nx-huge-pages-opt-out"}}) {
    std::vector<std::string> line = {"vm", "create", "arm", "--mmu", "stage2"};
    line.insert(line.end(), option.begin(), option.end());
    const Result result = daemon.Run(line);
    EXPECT_EQ(result.exit_code, kExitUsage) << option[0];
    EXPECT_TRUE(Contains(result.err, option[0])) << result.err;
  }
  for (const std::vector<std::string>& option :
       std::vector<std::vector<std::string>>{{"--granule", "4KiB"},
                                             {"--ipa-bits", "40"},
                                             {"--start-level", "1"},
                                             {"--bbm-level", "2"},
                                             {"--eager-split-chunk", "2MiB"},
                                             {"--hardware-access-flag"},
                                             {"--hardware-dirty-state"},
                                             {"--tlbi-range"}}) {
    std::vector<std::string> line = {"vm", "create", "alpha"};
    line.insert(line.end(), option.begin(), option.end());
    const Result result = daemon.Run(line);
    EXPECT_EQ(result.exit_code, kExitUsage) << option[0];
    EXPECT_TRUE(Contains(result.err, option[0])) << result.err;
  }
}

TEST(VmCommandsTest, WhatOrdinaryTablesCannotHaveIsRefused) {
  FakeDaemon daemon;
  for (const std::vector<std::string>& option :
       std::vector<std::vector<std::string>>{
           {"--pml", "on"}, {"--ad-bits", "off"}, {"--entry-format", "ept"}}) {
    const Result result = daemon.Run(
        {"vm", "create", "alpha", "--mmu", "shadow", option[0], option[1]});
    EXPECT_EQ(result.exit_code, kExitUsage) << result.err;
    EXPECT_TRUE(Contains(result.err, "--mmu shadow")) << result.err;
  }
}

TEST(VmCommandsTest, MemslotsHaveAShortForm) {
  FakeDaemon daemon;
  const Result result = daemon.Run({"vm", "create", "alpha", "--memslot",
                                    "0:0+2GiB:2m", "1:4GiB+2GiB:1g:memfd"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  ASSERT_EQ(daemon.create.vm().memslots_size(), 2);
  const v1::Memslot& second = daemon.create.vm().memslots(1);
  EXPECT_EQ(second.slot(), 1);
  EXPECT_EQ(second.gpa_bytes(), int64_t{4} << 30);
  EXPECT_EQ(second.size_bytes(), int64_t{2} << 30);
  EXPECT_EQ(second.host_page_size(), v1::PAGE_SIZE_1G);
  EXPECT_EQ(second.backing(), v1::MEMORY_BACKING_MEMFD);
}

TEST(VmCommandsTest, BackingsAreWrittenWithHyphensOrAsInTheProto) {
  FakeDaemon daemon;
  for (const char* word : {"metadata-only", "metadata_only", "METADATA_ONLY"}) {
    for (const std::vector<std::string>& memory :
         {std::vector<std::string>{"--memory", "1G", "--backing", word},
          {"--memslot", absl::StrCat("0:0+1G:2m:", word)}}) {
      std::vector<std::string> line = {"vm", "create", "a"};
      line.insert(line.end(), memory.begin(), memory.end());
      const Result result = daemon.Run(line);
      ASSERT_EQ(result.exit_code, kExitOk) << result.err;
      EXPECT_EQ(daemon.create.vm().memslots(0).backing(),
                v1::MEMORY_BACKING_METADATA_ONLY);
    }
  }
}

TEST(VmCommandsTest, LabelsThatAreNotNamedStay) {
  FakeDaemon daemon;
  daemon.labelled.set_name("vms/labelled");
  daemon.labelled.set_etag("1");
  (*daemon.labelled.mutable_labels())["keep"] = "k";
  (*daemon.labelled.mutable_labels())["old"] = "o";
  daemon.other_updates = 2;
  const Result result =
      daemon.Run({"vm", "update", "labelled", "--label", "new=n=1", "keep=K",
                  "--remove-label", "old", "--shadow-page-limit", "100"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  const v1::Vm& vm = daemon.update.vm();
  EXPECT_EQ(vm.labels_size(), 3);
  EXPECT_EQ(vm.labels().at("keep"), "K");
  EXPECT_EQ(vm.labels().at("new"), "n=1");
  EXPECT_EQ(vm.labels().at("other"), "xx");
  EXPECT_EQ(vm.shadow_page_limit(), 100);
  EXPECT_EQ(daemon.update.etag(), "1++");
  EXPECT_EQ(absl::StrJoin(daemon.update.update_mask().paths(), " "),
            "shadow_page_limit labels");
  EXPECT_EQ(daemon.Run({"vm", "update", "labelled"}).exit_code, kExitUsage);
}

TEST(VmCommandsTest, AnEagerSplitChunkOfZeroIsSent) {
  FakeDaemon daemon;
  const Result result =
      daemon.Run({"vm", "update", "arm", "--eager-split-chunk", "0"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  EXPECT_EQ(daemon.update.vm().stage2().eager_split_chunk_bytes(), 0);
  EXPECT_EQ(absl::StrJoin(daemon.update.update_mask().paths(), " "),
            "stage2.eager_split_chunk_bytes");
}

TEST(VmCommandsTest, ALimitAloneIsSentWithoutALook) {
  FakeDaemon daemon;
  const Result result =
      daemon.Run({"vm", "update", "alpha", "--shadow-page-limit", "64"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  EXPECT_EQ(absl::StrJoin(daemon.update.update_mask().paths(), " "),
            "shadow_page_limit");
  EXPECT_EQ(daemon.update.etag(), "");
}

TEST(VmCommandsTest, JsonHasTheNamesOfTheProto) {
  FakeDaemon daemon;
  const Result result =
      daemon.Run({"vm", "create", "a", "--memory", "1G", "--json"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  EXPECT_EQ(result.out[0], '{');
  const Json json = Json::parse(result.out, nullptr, false);
  EXPECT_EQ(json["vm"]["memslots"][0]["size_bytes"], 1073741824) << result.out;
}

}  // namespace
}  // namespace mmud::client
