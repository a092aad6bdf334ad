#include "server/log/call_facts.h"

#include <memory>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "google/longrunning/operations.pb.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "gtest/gtest.h"
#include "mmud/lab/v1/workload_service.pb.h"
#include "mmud/v1/admin_service.pb.h"
#include "mmud/v1/aging_service.pb.h"
#include "mmud/v1/debug_service.pb.h"
#include "mmud/v1/dirty_log_service.pb.h"
#include "mmud/v1/guest_memory_service.pb.h"
#include "mmud/v1/split_service.pb.h"
#include "mmud/v1/stats_service.pb.h"
#include "mmud/v1/vm_service.pb.h"

namespace mmud {
namespace {

using ::testing::ElementsAre;

// The methods of the file's service whose empty request counts as a change.
void AddChanges(const google::protobuf::FileDescriptor* file,
                std::set<std::string>* changes) {
  for (int s = 0; s < file->service_count(); ++s) {
    const auto* service = file->service(s);
    for (int m = 0; m < service->method_count(); ++m) {
      const std::unique_ptr<google::protobuf::Message> request(
          google::protobuf::MessageFactory::generated_factory()
              ->GetPrototype(service->method(m)->input_type())
              ->New());
      if (FactsOf(*request).changes_state) {
        changes->insert(service->method(m)->name());
      }
    }
  }
}

TEST(CallFactsTest, EveryMethodThatChangesStateIsKnown) {
  std::set<std::string> changes;
  for (const google::protobuf::FileDescriptor* file :
       {v1::GetBuildInfoRequest::descriptor()->file(),
        v1::AgeRangeRequest::descriptor()->file(),
        v1::RunAuditRequest::descriptor()->file(),
        v1::GetDirtyLogRequest::descriptor()->file(),
        v1::ReadPagesRequest::descriptor()->file(),
        v1::SplitHugePagesRequest::descriptor()->file(),
        v1::GetMmuStatsRequest::descriptor()->file(),
        v1::GetVmRequest::descriptor()->file(),
        lab::v1::StartWorkloadRequest::descriptor()->file(),
        google::longrunning::Operation::descriptor()->file()}) {
    AddChanges(file, &changes);
  }
  EXPECT_THAT(
      changes,
      ElementsAre("AcknowledgePages", "AcquireDirtyLog", "AgeRange",
                  "CancelOperation", "ClearDirtyLog", "CreateGeneration",
                  "CreateVm", "DeleteMemslot", "DeleteOperation", "DeleteVm",
                  "ForgetWorkingSet", "PauseSplit", "PauseVcpus",
                  "RecoverHugePages", "ResumeSplit", "ResumeVcpus",
                  "SealDirtyLog", "SetMemslot", "SplitHugePages",
                  "StartDirtyLog", "StartWorkload", "StopDirtyLog",
                  "StopWorkload", "UpdateAger", "UpdateSplit", "UpdateVm"));
}

TEST(CallFactsTest, AStreamThatHarvestsChangesStateAndOneThatReadsDoesNot) {
  v1::HarvestOpen harvest;
  harvest.set_vm("vms/a");
  EXPECT_TRUE(FactsOf(harvest).changes_state);
  EXPECT_EQ(FactsOf(harvest).vm, "vms/a");
  v1::ReadDirtyPagesRequest read;
  read.set_vm("vms/a");
  EXPECT_FALSE(FactsOf(read).changes_state);
  EXPECT_EQ(FactsOf(read).vm, "vms/a");
}

TEST(CallFactsTest, AnOwnersTokenIsNoFact) {
  v1::SealDirtyLogRequest request;
  request.set_vm("vms/a");
  request.set_owner_token("a secret of sixteen bytes");
  const CallFacts facts = FactsOf(request);
  EXPECT_EQ(facts.vm, "vms/a");
  EXPECT_EQ(facts.operation + facts.request_id, "");
}

TEST(CallFactsTest, WhoOnlyWantsToKnowChangesNothing) {
  v1::AgeRangeRequest age;
  age.set_request_id("r");
  age.set_mode(v1::AGING_MODE_TEST);
  EXPECT_FALSE(FactsOf(age).changes_state);
  age.set_mode(v1::AGING_MODE_TEST_AND_CLEAR);
  EXPECT_TRUE(FactsOf(age).changes_state);
  v1::SplitHugePagesRequest split;
  EXPECT_TRUE(FactsOf(split).changes_state);
  split.set_validate_only(true);
  EXPECT_FALSE(FactsOf(split).changes_state);
}

TEST(CallFactsTest, TheVmIsFoundUnderEachNameThatARequestGivesIt) {
  v1::CreateVmRequest create;
  create.set_vm_id("alpha");
  create.mutable_vm()->set_name("vms/other");
  EXPECT_EQ(FactsOf(create).vm, "vms/alpha");
  v1::UpdateVmRequest update;
  update.mutable_vm()->set_name("vms/alpha");
  EXPECT_EQ(FactsOf(update).vm, "vms/alpha");
  v1::DeleteVmRequest remove;
  remove.set_name("vms/alpha");
  EXPECT_EQ(FactsOf(remove).vm, "vms/alpha");
  v1::DeleteMemslotRequest slot;
  slot.set_name("vms/alpha/memslots/3");
  EXPECT_EQ(FactsOf(slot).vm, "vms/alpha");
  lab::v1::StartWorkloadRequest start;
  start.set_vm("vms/alpha");
  start.set_request_id("r");
  EXPECT_EQ(FactsOf(start).vm, "vms/alpha");
  EXPECT_EQ(FactsOf(start).request_id, "r");
  lab::v1::StopWorkloadRequest stop;
  stop.set_name("vms/alpha/workloads/6f9619ff-8b86-4d01-b42d-00cf4fc964ff");
  EXPECT_EQ(FactsOf(stop).vm, "vms/alpha");
  v1::PauseSplitRequest pause;
  pause.set_operation("operations/7");
  EXPECT_EQ(FactsOf(pause).operation, "operations/7");
  EXPECT_EQ(FactsOf(pause).vm, "");
  google::longrunning::CancelOperationRequest cancel;
  cancel.set_name("operations/8");
  EXPECT_EQ(FactsOf(cancel).operation, "operations/8");
}

TEST(CallFactsTest, WhateverIsSentOnlySoMuchIsKept) {
  v1::DeleteVmRequest request;
  request.set_name(absl::StrCat("vms/", std::string(1 << 20, 'a')));
  request.set_request_id(std::string(1 << 20, 'b'));
  EXPECT_LT(FactsOf(request).vm.size(), 300u);
  EXPECT_LT(FactsOf(request).request_id.size(), 300u);
  request.set_name("vms/");
  EXPECT_EQ(FactsOf(request).vm, "vms/");
}

}  // namespace
}  // namespace mmud
