#include "client/text/error_text.h"

#include <set>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "client/mmu_client/error_info.h"
#include "client/text/message_json.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace mmud::client {
namespace {

google::rpc::Status OverlapError() {
  google::rpc::Status status;
  status.set_code(static_cast<int>(absl::StatusCode::kInvalidArgument));
  status.set_message("slot 1 overlaps slot 0");
  google::rpc::ErrorInfo info;
  info.set_reason("REGION_OVERLAP");
  info.set_domain("mmud");
  (*info.mutable_metadata())["errno"] = "EEXIST";
  status.add_details()->PackFrom(info);
  google::rpc::BadRequest bad;
  bad.add_field_violations()->set_field("memslot.gpa_bytes");
  bad.mutable_field_violations(0)->set_description(
      "must not lie within another slot");
  status.add_details()->PackFrom(bad);
  return status;
}

TEST(RenderErrorTest, SaysFieldRuleReasonAndFix) {
  google::rpc::Status status = OverlapError();
  EXPECT_EQ(RenderError(FromRpcStatus(status), ""),
            "error: slot 1 overlaps slot 0\n"
            "  field:   memslot.gpa_bytes\n"
            "  rule:    must not lie within another slot\n"
            "  reason:  REGION_OVERLAP (errno=EEXIST)\n"
            "  fix:     show the VM's memslots: mmuctl vm get VM\n");
}

TEST(RenderErrorTest, SaysNothingTwice) {
  google::rpc::Status status;
  status.set_code(static_cast<int>(absl::StatusCode::kFailedPrecondition));
  status.set_message("slot 0 has dirty pages");
  google::rpc::ErrorInfo info;
  info.set_reason("UNDELIVERED_PAGES");
  (*info.mutable_metadata())["field"] = "slots";
  status.add_details()->PackFrom(info);
  google::rpc::BadRequest bad;
  bad.add_field_violations()->set_field("slots");
  bad.mutable_field_violations(0)->set_description("slot 0 has dirty pages");
  const std::string expected =
      "error: slot 0 has dirty pages\n"
      "  field:   slots\n"
      "  reason:  UNDELIVERED_PAGES\n"
      "  fix:     if pages in flight were not copied, seal them again first, "
      "even in your own log: mmuctl dirty-log acquire VM --force; as the log's "
      "owner, pause the guest (mmuctl vm pause VM), harvest (mmuctl dirty-log "
      "harvest VM), copy, acknowledge (mmuctl dirty-log ack VM) and try again; "
      "if you do not need the pages, or do not own the log, discard them with "
      "--discard (vm delete: --force)\n";
  EXPECT_EQ(RenderError(FromRpcStatus(status), ""), expected);
  status.add_details()->PackFrom(bad);
  EXPECT_EQ(RenderError(FromRpcStatus(status), ""), expected);
}

// The fix for an error with this reason and this resource.
std::string FixOf(const std::string& reason, const std::string& resource) {
  google::rpc::Status status;
  status.set_code(static_cast<int>(absl::StatusCode::kFailedPrecondition));
  status.set_message("no");
  google::rpc::ErrorInfo info;
  info.set_reason(reason);
  status.add_details()->PackFrom(info);
  google::rpc::ResourceInfo about;
  about.set_resource_name(resource);
  status.add_details()->PackFrom(about);
  return ErrorJson(FromRpcStatus(status), "")["error"]["fix"];
}

TEST(RenderErrorTest, FixNamesTheVmThatTheErrorNames) {
  EXPECT_EQ(FixOf("MEMSLOT_NOT_FOUND", "vms/alpha/memslots/9"),
            "show the VM's memslots: mmuctl vm get alpha");
  EXPECT_EQ(FixOf("DIRTY_LOG_OFF", "vms/a-1"),
            "list the logged memslots: mmuctl dirty-log get a-1; see whether a "
            "start is running: mmuctl op list --vm a-1; switch logging on: "
            "mmuctl dirty-log start a-1");
  for (const char* resource :
       {"", "vms/", "vms//memslots/1", "operations/alpha", "alpha", "vms/a;b",
        "vms/'a'"}) {
    EXPECT_EQ(FixOf("MEMSLOT_NOT_FOUND", resource),
              "show the VM's memslots: mmuctl vm get VM")
        << resource;
  }
}

TEST(RenderErrorTest, EachCommandOfAFixLeadsToTheDaemon) {
  google::rpc::Status status = OverlapError();
  google::rpc::ErrorInfo info;
  info.set_reason("LOG_OWNED");
  status.mutable_details(0)->PackFrom(info);
  const absl::Status error = FromRpcStatus(status);
  const std::string fix =
      "see the pages without a token: mmuctl --address unix:/a dirty-log peek "
      "VM; take the log over: mmuctl --address unix:/a dirty-log acquire VM, "
      "with --force while the owner's lease lasts";
  EXPECT_NE(RenderError(error, "unix:/a", "mmuctl --address unix:/a")
                .find(absl::StrCat("  fix:     ", fix, "\n")),
            std::string::npos);
  EXPECT_EQ(
      ErrorJson(error, "unix:/a", "mmuctl --address unix:/a")["error"]["fix"],
      fix);
}

TEST(RenderErrorTest, NoFixHasAPlaceholderLeft) {
  for (const char* reason :
       {"VM_EXISTS", "WORKLOAD_RUNNING", "DIRTY_LOG_ACTIVE", "LOG_OWNED",
        "LOG_FENCED", "LOG_CHANGED", "EPOCH_MISMATCH", "UNDELIVERED_PAGES",
        "NO_GENERATION", "GENERATION_RUNNING"}) {
    const std::string fix = FixOf(reason, "vms/alpha");
    EXPECT_NE(fix.find(" alpha"), std::string::npos) << fix;
    EXPECT_EQ(fix.find("VM"), std::string::npos) << fix;
    EXPECT_EQ(fix.find('{'), std::string::npos) << fix;
  }
}

TEST(RenderErrorTest, TooManyEpochsInFlightAreAcknowledged) {
  google::rpc::Status status;
  status.set_code(static_cast<int>(absl::StatusCode::kResourceExhausted));
  status.set_message("pages of four other epochs are in flight");
  google::rpc::ErrorInfo info;
  info.set_reason("LIMIT_EXCEEDED");
  status.add_details()->PackFrom(info);
  EXPECT_NE(RenderError(FromRpcStatus(status), "").find("mmuctl capabilities"),
            std::string::npos);
  (*info.mutable_metadata())["limit"] = "epochs_in_flight";
  status.mutable_details(0)->PackFrom(info);
  EXPECT_NE(RenderError(FromRpcStatus(status), "").find("dirty-log ack VM"),
            std::string::npos);
}

TEST(RenderErrorTest, LogThatWasTakenOverComesBackByForceWhileALeaseLasts) {
  google::rpc::Status status;
  status.set_code(static_cast<int>(absl::StatusCode::kFailedPrecondition));
  status.set_message("somebody else acquired it");
  google::rpc::ErrorInfo info;
  info.set_reason("LOG_FENCED");
  status.add_details()->PackFrom(info);
  EXPECT_NE(RenderError(FromRpcStatus(status), "").find("with --force"),
            std::string::npos);
}

TEST(RenderErrorTest, DaemonThatIsNotThereNamesTheAddress) {
  EXPECT_EQ(RenderError(absl::UnavailableError("connection refused"),
                        "unix:/run/mmud.sock"),
            "error: connection refused\n"
            "  fix:     is mmud running at unix:/run/mmud.sock? Start it, with "
            "--listen=unix:/PATH for another address, and give the address "
            "with --address or MMUD_ADDRESS\n");
}

TEST(RenderErrorTest, ErrorWithoutDetailsIsOneLine) {
  EXPECT_EQ(RenderError(absl::InternalError("oops"), ""), "error: oops\n");
  EXPECT_EQ(RenderError(absl::InternalError(""), ""), "error: internal\n");
}

TEST(ErrorJsonTest, HoldsAllThatTheTextSays) {
  google::rpc::Status status = OverlapError();
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(2);
  status.add_details()->PackFrom(retry);
  EXPECT_EQ(ErrorJson(FromRpcStatus(status), ""), Json::parse(R"({"error": {
        "code": "INVALID_ARGUMENT", "exit_code": 3,
        "message": "slot 1 overlaps slot 0", "reason": "REGION_OVERLAP",
        "metadata": {"errno": "EEXIST"},
        "field_violations": [{"field": "memslot.gpa_bytes",
                              "rule": "must not lie within another slot"}],
        "preconditions": [], "resource_name": "", "retry_delay": "2s",
        "fix": "show the VM's memslots: mmuctl vm get VM"}})"));
}

TEST(ErrorJsonTest, KeysWithNothingToSayAreThereAndEmpty) {
  EXPECT_EQ(ErrorJson(absl::InternalError("oops"), ""),
            Json::parse(R"({"error": {
              "code": "INTERNAL", "exit_code": 10, "message": "oops",
              "reason": "", "metadata": {}, "field_violations": [],
              "preconditions": [], "resource_name": "", "retry_delay": null,
              "fix": ""}})"));
}

TEST(ExitCodeTest, WhatWasNotSentIsAUsageError) {
  const absl::Status status = UsageError("give one of them");
  EXPECT_EQ(ExitCodeFor(status), kExitUsage);
  EXPECT_EQ(RenderError(status, ""), "error: give one of them\n");
}

TEST(ExitCodeTest, CausesHaveDifferentCodes) {
  EXPECT_EQ(ExitCodeFor(absl::OkStatus()), 0);
  std::set<int> codes;
  for (const absl::StatusCode code :
       {absl::StatusCode::kInvalidArgument, absl::StatusCode::kNotFound,
        absl::StatusCode::kAborted, absl::StatusCode::kUnavailable,
        absl::StatusCode::kDeadlineExceeded, absl::StatusCode::kCancelled,
        absl::StatusCode::kResourceExhausted, absl::StatusCode::kInternal}) {
    codes.insert(ExitCodeFor(absl::Status(code, "")));
  }
  EXPECT_EQ(codes, (std::set<int>{3, 4, 5, 6, 7, 8, 9, 10}));
}

TEST(ExitCodeTest, HelpNamesEveryCode) {
  for (int code = kExitOk; code <= kExitInternal; ++code) {
    EXPECT_NE(ExitCodeHelp().find(absl::StrCat(" ", code, "  ")),
              std::string::npos)
        << code;
  }
}

}  // namespace
}  // namespace mmud::client
